"""What several tests of a host need."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No choir.toml nearby, and nothing said in the environment."""
    monkeypatch.delenv("CHOIR_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
