from __future__ import annotations

from pathlib import Path

import pytest

from infra.demo_models.bench_model import default_path, main, write_bench_model


def test_the_same_parameters_give_the_same_file(tmp_path: Path) -> None:
    one = write_bench_model(tmp_path / "one.gguf", layers=1, width=64)
    two = write_bench_model(tmp_path / "two.gguf", layers=1, width=64)
    other = write_bench_model(tmp_path / "other.gguf", layers=1, width=64, seed=1)
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()


def test_a_file_that_is_there_is_used_again_and_another_shape_replaces_it(tmp_path: Path) -> None:
    path = write_bench_model(tmp_path / "m.gguf", layers=1, width=64)
    written = path.stat().st_mtime_ns
    write_bench_model(path, layers=1, width=64)
    assert path.stat().st_mtime_ns == written
    write_bench_model(path, layers=2, width=64)
    assert path.stat().st_mtime_ns != written


def test_what_was_not_finished_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF, but not quite")
    write_bench_model(path, layers=1, width=64)
    assert path.stat().st_size > 1_000
    assert list(tmp_path.iterdir()) == [path]


def test_the_model_lives_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path().parent == tmp_path / "choir"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert main(["--layers", "1", "--width", "64", "--out", str(tmp_path / "file" / "m.gguf")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_shape_that_cannot_be_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--width", "65", "--out", str(tmp_path / "m.gguf")]) == 1
    assert "multiple of 32" in capsys.readouterr().err
