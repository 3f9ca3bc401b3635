"""What tells one file of weights from another."""

from __future__ import annotations

from pathlib import Path

from services.engine.model.identity import SAMPLE_BYTES, SAMPLES, file_identity


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
