"""Links by which the parts of a split model are opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.testing.made_models.variants import split_model
from schemas.nodes.model_store import FileChunks, ModelFile, Origin, StoredModel
from services.engine import check_model_file
from services.modelstore.files.hashing import hashed
from services.modelstore.files.known_files import KnownFile
from services.modelstore.files.named_parts import NamedParts, names_of
from services.modelstore.tests.stores import small_model


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """The files of a model, which is called "cached"."""
    (tmp_path / "there").mkdir()
    whole = small_model(tmp_path / "there" / "whole.gguf", layers=2, width=64)
    return split_model(whole, tmp_path / "there" / "cached.gguf")


def stored(parts: list[Path], names: list[str]) -> tuple[StoredModel, list[KnownFile]]:
    """A model as the catalogue has it, its files called otherwise than they are here."""
    chunks: list[FileChunks] = [hashed(part) for part in parts]
    files = tuple(
        ModelFile(name=name, size_bytes=one.size_bytes, sha256=one.sha256)
        for name, one in zip(names, chunks, strict=True)
    )
    known = [KnownFile.of(part, one, own=True) for part, one in zip(parts, chunks, strict=True)]
    origin = Origin(kind="local", place="/there")
    return StoredModel(name="m", files=files, architecture="llama", origin=origin, added_at_s=0.0), known


def test_parts_are_opened_by_links_with_their_names_and_where_they_lie_if_these_fit(
    parts: list[Path], tmp_path: Path
) -> None:
    blobs = [tmp_path / f"{number}" for number, _ in enumerate(parts)]
    for blob, part in zip(blobs, parts, strict=True):
        blob.write_bytes(part.read_bytes())
    named = NamedParts(tmp_path / "named")
    # Names that llama.cpp would not open are not taken from the catalogue
    for stem, names in (
        ("cached", [part.name for part in parts]),
        ("model", [f"{number}.bin" for number, _ in enumerate(blobs)]),
    ):
        model, known = stored(blobs, names)
        paths = named.paths(model, known)
        assert [path.name for path in paths] == [
            f"{stem}-{number:05d}-of-{len(blobs):05d}.gguf" for number in range(1, len(blobs) + 1)
        ]
        assert check_model_file(paths[0]).tensors and named.paths(model, known) == paths
        # One that leads elsewhere by now is made again
        paths[1].unlink()
        paths[1].symlink_to(paths[0])
        assert named.paths(model, known)[1].read_bytes() == blobs[1].read_bytes()
        named.remove(model)
        assert list((tmp_path / "named").iterdir()) == [] and all(blob.is_file() for blob in blobs)
    # Where the names belong together nothing is made
    model, known = stored(parts, [part.name for part in parts])
    assert named.paths(model, known) == tuple(parts)
    assert names_of(model.files) == [part.name for part in parts]
    # And where no link can be made the files are told where they lie
    (tmp_path / "file").write_bytes(b"")
    model, known = stored(blobs, [part.name for part in parts])
    assert NamedParts(tmp_path / "file" / "named").paths(model, known) == tuple(blobs)


def test_a_disk_without_symbolic_links_has_hard_ones(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, _target: Path) -> None:
        raise PermissionError(1, "no symbolic links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    blobs = [part.rename(tmp_path / f"{number}") for number, part in enumerate(parts)]
    model, known = stored(blobs, [part.name for part in parts])
    paths = NamedParts(tmp_path / "named").paths(model, known)
    assert check_model_file(paths[0]).tensors and not paths[0].is_symlink()
