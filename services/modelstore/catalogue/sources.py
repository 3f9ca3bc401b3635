"""Models where people have them already: files, folders, an Ollama folder, the cache of Hugging Face.

Nothing is copied: a model is served from where it lies.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.errors import InvalidRequest, ModelUnusable
from schemas.nodes.model_store import MAX_FILES, FileName, ModelName, Origin
from services.engine.model.gguf.split_files import PART_NAME, part_name
from services.modelstore.catalogue.gguf_facts import licence_text

DIGEST = re.compile(r"sha256[:-](?P<hex>[0-9a-f]{64})")
GGUF = ".gguf"
MODEL_LAYER = "application/vnd.ollama.image.model"
LICENCE_NAME = re.compile(r"(LICEN[CS]E|COPYING)(\.(txt|md))?", re.IGNORECASE)
LICENCE_LAYER = "application/vnd.ollama.image.license"
USUAL_REGISTRY = ("registry.ollama.ai", "library")
HUB_FOLDER = "models--"
MAX_MANIFEST_BYTES = 1 << 20
MAX_DEPTH = 6
MAX_FOUND = 1_000
LONGEST_NAME = 128
SHOWN_CHARACTERS = 200
UNSAFE = re.compile(r"[\s/\\\x00-\x1f\x7f-\x9f]+")

_MODEL_NAME: TypeAdapter[str] = TypeAdapter(ModelName)
_FILE_NAME: TypeAdapter[str] = TypeAdapter(FileName)


@dataclass(frozen=True)
class Found:
    """A model that lies somewhere: its files by name, in their order."""

    name: str
    files: tuple[tuple[str, Path], ...]
    origin: Origin
    licence_text: str | None = None


def checked_name(name: str, field: str = "name") -> str:
    """The name of a model; InvalidRequest says what is wrong with it."""
    return _checked(_MODEL_NAME, name, field)


def checked_file_name(name: str, field: str = "name") -> str:
    """The name of a file, without a folder; InvalidRequest says what is wrong with it."""
    return _checked(_FILE_NAME, name, field)


def _checked(kind: TypeAdapter[str], name: str, field: str) -> str:
    try:
        return kind.validate_python(name)
    except ValidationError as error:
        raise InvalidRequest(
            f"{field}: {name[:SHOWN_CHARACTERS]!r} cannot be used: a name is no longer than "
            f"{LONGEST_NAME} characters, and holds no blank, no control character, no / and no .. in it; "
            "letters, digits and . _ - : + @ are always possible",
            field=field,
        ) from error


def found_at(path: Path) -> tuple[Found, ...]:
    """The models at a path. Blocks; InvalidRequest if there are none, ModelUnusable if a part is missing."""
    path = path.expanduser()
    if not path.exists():
        raise InvalidRequest(f"path: there is no {path} on this host", field="path")
    if path.is_file():
        found = _in_files([_first_part(path)])
    elif (path / "manifests").is_dir() and (path / "blobs").is_dir():
        found = list(_in_ollama(path))
    elif hubs := _hub_folders(path):
        found = [one for folder in hubs for one in _in_hub_cache(folder)]
    else:
        found = _in_files(sorted(_gguf_below(path)))
    if not found:
        raise InvalidRequest(
            f"path: {path} is no GGUF file, and holds none; an Ollama folder (with manifests and blobs) and "
            "the cache of Hugging Face are known too",
            field="path",
        )
    return tuple(found[:MAX_FOUND])


def licence_file(names: Iterable[str]) -> str | None:
    """Which of the files of a repository is its licence; None if none is."""
    return next((name for name in sorted(names) if LICENCE_NAME.fullmatch(name)), None)


def name_from(text: str) -> str:
    """A name that is possible, made of one that need not be."""
    plain = UNSAFE.sub("-", text).strip("-.")
    while ".." in plain:
        plain = plain.replace("..", ".")
    return plain[:LONGEST_NAME] or "model"


def _first_part(path: Path) -> Path:
    parts = PART_NAME.fullmatch(path.name)
    if parts is None:
        return path
    return path.with_name(part_name(parts, 1))


def _gguf_below(folder: Path, depth: int = 0) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and depth < MAX_DEPTH:
            yield from _gguf_below(path, depth + 1)
        elif path.suffix.lower() == GGUF and path.is_file():
            yield path


def _in_files(paths: list[Path]) -> list[Found]:
    """Whole files, and split ones of which the first part is among `paths`."""
    found = []
    for path in paths:
        parts = PART_NAME.fullmatch(path.name)
        if parts is None:
            stem = path.stem if path.suffix.lower() == GGUF else path.name
            found.append(_local(name_from(stem), [path]))
        elif int(parts["number"]) == 1:
            found.append(_local(name_from(parts["stem"]), list(_parts(path, parts))))
    return found


def _parts(path: Path, parts: re.Match[str]) -> Iterator[Path]:
    count = int(parts["count"])
    if not 1 <= count <= MAX_FILES:
        raise ModelUnusable(f"{path} says that it has {count} parts; 1 to {MAX_FILES} are read", field="path")
    for number in range(1, count + 1):
        part = path.with_name(part_name(parts, number))
        if not part.is_file():
            raise ModelUnusable(f"{path} is one of {count} parts, and {part.name} is missing", field="path")
        yield part


def _local(name: str, paths: list[Path]) -> Found:
    files = tuple((checked_file_name(path.name, "path"), path.absolute()) for path in paths)
    return Found(name, files, Origin(kind="local", place=str(paths[0].absolute())))


# --- an Ollama folder ----------------------------------------------------------------------


def _in_ollama(folder: Path) -> Iterator[Found]:
    manifests = folder / "manifests"
    for path in sorted(manifests.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        *registry, model, tag = path.relative_to(manifests).parts
        layers = _layers(path)
        weights = [layer for layer in layers if layer.get("mediaType") == MODEL_LAYER]
        if not weights:
            continue
        usual = tuple(registry) == USUAL_REGISTRY
        shown = f"{model}:{tag}" if usual else f"{'-'.join((*registry[1:], model))}:{tag}"
        files = [(f"{name_from(model)}-{name_from(tag)}{GGUF}", _blob(folder, weights[0], path))]
        texts = [
            _beginning(licence)
            for layer in layers
            if layer.get("mediaType") == LICENCE_LAYER and (licence := _blob(folder, layer, path)).is_file()
        ]
        origin = Origin(kind="ollama", place=name_from("/".join((*registry, model, tag))))
        yield Found(name_from(shown), tuple(files), origin, licence_text("\n\n".join(texts)))


def _beginning(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(MAX_MANIFEST_BYTES)


def _layers(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError("it is too large")
        said = json.loads(path.read_bytes())
        layers = said["layers"]
        if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
            raise ValueError("its layers are no list")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelUnusable(f"the manifest {path} cannot be read: {error}", field="layers") from error
    return layers


def _blob(folder: Path, layer: dict[str, Any], manifest: Path) -> Path:
    """Where a layer lies. Its name is made of its digest, and of nothing else that the manifest says."""
    digest = DIGEST.fullmatch(str(layer.get("digest")))
    if digest is None:
        raise ModelUnusable(f"the manifest {manifest} names a layer that has no SHA-256", field="digest")
    blobs = folder / "blobs"
    plain = blobs / f"sha256-{digest['hex']}"
    return plain if plain.exists() else blobs / f"sha256:{digest['hex']}"


# --- the cache of Hugging Face ----------------------------------------------------------------


def _hub_folders(path: Path) -> list[Path]:
    if path.name.startswith(HUB_FOLDER) and (path / "snapshots").is_dir():
        return [path]
    for folder in (path, path / "hub"):
        if found := sorted(one for one in folder.glob(f"{HUB_FOLDER}*") if (one / "snapshots").is_dir()):
            return found
    return []


def _in_hub_cache(folder: Path) -> Iterator[Found]:
    repository = folder.name.removeprefix(HUB_FOLDER).replace("--", "/")
    for snapshot in sorted((folder / "snapshots").iterdir()):
        licence = licence_file(one.name for one in snapshot.iterdir() if one.is_file())
        text = licence_text(_beginning(snapshot / licence)) if licence is not None else None
        by_model: dict[str, list[Found]] = defaultdict(list)
        for one in _in_files(sorted(_gguf_below(snapshot))):
            by_model[one.name].append(one)
        for name, models in by_model.items():
            place = Origin(kind="hugging_face", place=repository, revision=snapshot.name)
            yield Found(name, models[0].files, place, text)
