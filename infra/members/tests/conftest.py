"""Machines for tests of hosts that meet over a network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.members.tests.machines import Machine
from infra.testing.networks import NEEDED, Network, Networks, allowed

UV = """#!/bin/sh
# What `uv run` does, with the environment that is there.
shift
exec "{folder}/$@"
"""


@pytest.fixture
def networks() -> Iterator[list[Network]]:
    """Three, or a skip where nobody may make them."""
    if not allowed():
        pytest.skip(NEEDED)
    with Networks(3).built() as places:
        yield list(places)


@pytest.fixture
def machine(networks: list[Network], tmp_path: Path) -> Callable[[str], Machine]:
    """Makes machines on which Choir is installed, and nothing was ever done."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(UV.format(folder=Path(sys.executable).parent))
    (tools / "uv").chmod(0o755)

    def make(name: str) -> Machine:
        home = tmp_path / name
        home.mkdir()
        return Machine(networks.pop(0), home, tools)

    return make
