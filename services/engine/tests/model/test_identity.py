"""What tells one file of weights from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from infra.testing.made_models.random_models import RECIPES, write_random_model
from schemas.errors import ModelUnusable
from services.engine.model.identity import SAMPLE_BYTES, SAMPLES, checksum, file_identity


def test_a_copy_has_the_same_identity_and_other_weights_have_another(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for size in (0, 1, SAMPLE_BYTES + 1, 3 * SAMPLES * SAMPLE_BYTES):
        one.write_bytes(bytes(size))
        other.write_bytes(bytes(size))
        assert file_identity(one) == file_identity(other)
        other.write_bytes(b"w" * size + b"w")
        assert file_identity(one) != file_identity(other)
        other.write_bytes(bytes(size // 2) + b"w" * (size - size // 2))
        assert size == 0 or file_identity(one) != file_identity(other)


def test_a_split_model_is_told_by_all_its_parts(tmp_path: Path) -> None:
    write_random_model(tmp_path / "split.gguf", "qwen2", RECIPES["qwen2"], split_tensors=20)
    first, *others = sorted(tmp_path.glob("split-*-of-*.gguf"))
    sha256 = hashlib.sha256(b"".join(part.read_bytes() for part in (first, *others))).hexdigest()
    assert checksum(first) == checksum(first, sha256) == sha256
    identity = file_identity(first)
    # When a weight in the last part is another one
    content = bytearray(others[-1].read_bytes())
    content[-1] ^= 1
    others[-1].write_bytes(content)
    assert file_identity(first) != identity
    with pytest.raises(ModelUnusable, match=r"split-00001-of-\d+\.gguf is damaged or another file"):
        checksum(first, sha256)
    # When a part is gone
    others[0].unlink()
    for told_by in (checksum, file_identity):
        with pytest.raises(ModelUnusable, match=f"{others[0].name} is not beside it"):
            told_by(first)
