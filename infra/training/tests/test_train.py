"""Training refuses bad arguments with one line, and before torch is imported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from infra.demo_models.family import FAMILY
from infra.training import train
from infra.training.corpus.examples import MIXES
from infra.training.train import check_writable, chosen_members


def run_train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.training.train", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    done = run_train("--architecture", "mamba")
    assert done.returncode == 2
    assert done.stderr == "error: unknown architecture 'mamba'; known are llama, qwen2, phi3, gemma2\n"


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    done = run_train("--output", str(in_the_way / "models"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write to the output folder {in_the_way / 'models'}: ")
    assert done.stderr.count("\n") == 1


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(ValueError, match="cannot write to the output folder"):
        check_writable(in_the_way)


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_all_are_trained_when_none_is_named() -> None:
    assert chosen_members(None) == list(FAMILY.values())
    assert [m.name for m in chosen_members(["phi3"])] == ["choir-phi"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch: infra/training/README.md")
def test_the_same_seed_gives_the_same_weights() -> None:
    member, schedule = FAMILY["choir-llama"], train.Schedule(2, 1e-3, MIXES[0], seed=3)
    weights = []
    for _ in range(2):
        model = train.first_model(member, seed=3, resume=None)
        train.train(model, member, schedule, 1, Console(quiet=True))
        weights.append(model.state_dict())

    first, second = weights
    assert all(bool((first[name] == second[name]).all()) for name in first)
