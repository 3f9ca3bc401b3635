"""The command line as tests run it: in this process, against the mesh of `choir up` or against none."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.cli.app import build_app
from services.cli.shell.outcome import run


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def offline_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in this process, on a host where no mesh is known."""
    for name in [name for name in os.environ if name.startswith("CHOIR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def cli(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run(build_app(), arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return cli


@pytest.fixture
def cli(offline_cli: Cli, live_mesh: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command line in this process, against the live mesh."""
    monkeypatch.setenv("CHOIR_MESH__URL", live_mesh)
    return offline_cli
