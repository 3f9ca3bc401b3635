"""Which files of a hub's repository are the model that is meant, and what the hub says that they are."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

from schemas.errors import ChoirError, InvalidRequest, PullFailed
from schemas.nodes.model_store import ModelFile
from services.engine.model.gguf.split_files import PART_NAME
from services.modelstore.catalogue.gguf_facts import short_text
from services.modelstore.catalogue.sources import checked_file_name, licence_file, name_from
from services.modelstore.settings import ModelStoreSection

ASKED = re.compile(
    r"hf:(?P<repository>[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*)(:(?P<weights>[A-Za-z0-9._-]+))?"
)
SHA256 = re.compile(r"[0-9a-f]{64}")
REVISION = re.compile(r"[0-9A-Za-z._-]{1,100}")
METADATA_PATIENCE_S = 20.0


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: where it is, and what it has to be."""

    file: ModelFile
    url: str


@dataclass(frozen=True)
class HubModel:
    """A model in a repository at one revision. `licence` is what its card calls it, and its text lies at
    `licence_url`."""

    name: str
    repository: str
    revision: str
    files: tuple[HubFile, ...]
    licence: str | None = None
    licence_url: str | None = None


def token_of(settings: ModelStoreSection) -> str | None:
    """The operator's token, if there is one."""
    if settings.token is not None:
        return settings.token.get_secret_value().strip()
    if settings.token_file is None:
        return None
    try:
        lines = settings.token_file.expanduser().read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PullFailed("modelstore.token_file cannot be read", field="modelstore.token_file") from error
    return lines[0].strip() if lines else None


def hub_model(settings: ModelStoreSection, asked: str) -> HubModel:
    """The model that `hf:organisation/repository[:quantisation]` means; the name of a file there does, too.
    Blocks.

    Raises InvalidRequest, with what there is to choose from, and PullFailed if the hub says nothing of use.
    """
    parts = ASKED.fullmatch(asked)
    if parts is None or ".." in asked:
        raise InvalidRequest(
            f"name: {asked!r} is not hf:ORGANISATION/REPOSITORY, with :QUANTISATION after it", field="name"
        )
    repository = parts["repository"]
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    from huggingface_hub import HfApi, hf_hub_url

    def url_of(path: str) -> str:
        return str(hf_hub_url(repository, path, revision=revision, endpoint=settings.hub.rstrip("/")))

    api = HfApi(endpoint=settings.hub.rstrip("/"), token=token_of(settings) or False, library_name="choir")
    try:
        info = api.model_info(repository, files_metadata=True, timeout=METADATA_PATIENCE_S)
        revision = str(info.sha or "")
        if not REVISION.fullmatch(revision):
            raise ValueError("it names no revision")
        siblings = {one.rfilename: one for one in info.siblings or ()}
        weights = re.sub(r"\.gguf$", "", parts["weights"] or "", flags=re.IGNORECASE) or None
        name, chosen = _chosen(repository, weights, sorted(siblings))
        files = []
        for path in chosen:
            said = siblings[path]
            sha256 = said.lfs.sha256 if said.lfs is not None else ""
            if not SHA256.fullmatch(sha256) or not said.size or said.size < 1:
                raise ValueError(f"it does not say the size and the SHA-256 of {path}")
            file = ModelFile(
                name=checked_file_name(PurePosixPath(path).name), size_bytes=said.size, sha256=sha256
            )
            files.append(HubFile(file, url_of(path)))
        text = licence_file(siblings)
    except ChoirError:
        raise
    except Exception as error:
        raise PullFailed(
            f"the hub {settings.hub} says nothing of use about {repository}: {_why(error)}", field="name"
        ) from error
    named = info.card_data.get("license") if info.card_data is not None else None
    licence = short_text(named) if isinstance(named, str) else None
    return HubModel(name, repository, revision, tuple(files), licence, text and url_of(text))


def _why(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _chosen(repository: str, weights: str | None, paths: list[str]) -> tuple[str, list[str]]:
    """The name of the model and its files, in their order."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if not path.lower().endswith(".gguf") or PurePosixPath(path).name.lower().startswith("mmproj"):
            continue
        split = PART_NAME.fullmatch(PurePosixPath(path).name)
        stem = split["stem"] if split is not None else PurePosixPath(path).stem
        groups[str(PurePosixPath(path).parent / stem)].append(path)
    fitting = {
        stem: files
        for stem, files in groups.items()
        if weights is None or re.search(rf"(^|[-._/]){re.escape(weights)}$", stem, re.IGNORECASE)
    }
    if len(fitting) != 1:
        known = tuple(sorted(PurePosixPath(stem).name for stem in groups))
        what = "has no GGUF file of that kind" if not fitting else "has several GGUF files"
        raise InvalidRequest(
            f"name: {repository} {what}: say which with :QUANTISATION. There are: "
            f"{', '.join(known) or 'none'}",
            field="name",
            known=known,
        )
    (stem, files), = fitting.items()  # fmt: skip
    return name_from(PurePosixPath(stem).name), sorted(files)
