"""A damaged, missing or unlisted model file is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.demo_models.checksums import model_path, read, record, verify
from infra.demo_models.family import FAMILY, FOLDER
from schemas.errors import ModelUnusable, UnknownModel


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with one listed file."""
    path = tmp_path / "choir-test.gguf"
    path.write_bytes(b"GGUF and so on")
    record(tmp_path)
    return path


@pytest.mark.parametrize("name", FAMILY)
def test_the_published_files_are_what_their_list_says(name: str) -> None:
    verify(model_path(name))


def test_every_file_of_the_family_is_small_enough_to_be_shipped() -> None:
    sizes = [model_path(name).stat().st_size for name in FAMILY]
    assert max(sizes) <= 8 * 2**20
    assert sum(sizes) <= 32 * 2**20
    assert set(read(FOLDER)) == {f"{name}.gguf" for name in FAMILY}


def test_a_whole_file_passes(model: Path) -> None:
    verify(model)


def test_a_changed_byte_is_found_and_the_file_is_named(model: Path) -> None:
    model.write_bytes(b"GGUF and so 0n")
    with pytest.raises(ModelUnusable, match=r"choir-test\.gguf is damaged: .* should be"):
        verify(model)


def test_a_cut_file_is_found(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(ModelUnusable, match="damaged"):
        verify(model)


def test_a_missing_file_is_named(model: Path) -> None:
    model.unlink()
    with pytest.raises(ModelUnusable, match=r"choir-test\.gguf is missing"):
        verify(model)


def test_a_file_that_is_not_listed_is_not_trusted(model: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"other\.gguf has no checksum"):
        verify(model.with_name("other.gguf"))


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="SHA256SUMS cannot be read"):
        verify(tmp_path / "choir-test.gguf")


def test_a_broken_list_is_named_with_its_line(model: Path) -> None:
    (model.parent / "SHA256SUMS").write_text("only-one-word\n")
    with pytest.raises(ModelUnusable, match="only-one-word"):
        verify(model)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownModel, match="choir-gemma") as refusal:
        model_path("choir-gpt")
    assert refusal.value.known == tuple(FAMILY)
