"""Two versions in one mesh, under load: a host is set back to an older version of the schemas, and upgraded
again.

Its services that are on the way of a request are told to end, and its supervisor starts them with the older
schemas, which are generated from the golden files. After a while the same happens the other way round.
Those of the other hosts are of the present version all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtest.trial.hosts import Host
from loadtest.trial.registered import Running, running_on
from loadtest.trial.upgrading import PATH, REPLACED
from schemas.errors import ChoirError
from services.client.client import Choir

GENERATOR = "services.tests.versions.older_schemas"
PATIENCE_S = 180.0
"""How long the services of a host may take to be there in another version: under load, and all at once."""
LOOK_S = 0.5


@dataclass(frozen=True)
class SetBack:
    """What came of it: of so many `services` of a `host` so many were seen ready that were `older`, and then
    so many of the `present` version."""

    host: str
    services: int
    older: int
    present: int
    lasting_s: float

    def __str__(self) -> str:
        return (
            f"{self.older} of {self.services} services of {self.host} were of an older version for "
            f"{self.lasting_s:g} s, then {self.present} of the present one"
        )


def older_schemas(folder: Path) -> Path:
    """A folder within this one with the older schemas, which are made if it is not there."""
    older = folder / "older"
    if not older.exists():
        subprocess.run([sys.executable, "-m", GENERATOR, str(older)], check=True)
    return older


async def set_back(host: Host, schemas: Path, url: str, lasting_s: float) -> SetBack:
    """Has the services of a host speak the schemas in that folder, for `lasting_s` once they are there. The
    mesh at `url` knows which are."""

    def is_older(one: Running) -> bool:
        with contextlib.suppress(psutil.Error):
            return str(schemas) in psutil.Process(one.pid).environ().get(PATH, "").split(os.pathsep)
        return False

    def is_present(one: Running) -> bool:
        return not is_older(one)

    count = len(_replaced(host))
    host.version.symlink_to(schemas)
    try:
        older = await _replace(host, url, count, is_present, is_older)
        await asyncio.sleep(lasting_s)
    finally:
        host.version.unlink()
        _end(host, is_older, set())
    present = await _replace(host, url, count, is_older, is_present)
    return SetBack(host.name, count, older, present, lasting_s)


async def _replace(
    host: Host, url: str, count: int, goes: Callable[[Running], bool], comes: Callable[[Running], bool]
) -> int:
    """Ends those that go, and waits until `count` of those that come are ready; how many were."""
    told: set[int] = set()
    end_s = time.monotonic() + PATIENCE_S
    while True:
        _end(host, goes, told)
        ready = await _ready(url)
        there = sum((one.service, one.pid) in ready and comes(one) for one in _replaced(host))
        if there >= count or host.gone or time.monotonic() > end_s:
            return there
        await asyncio.sleep(LOOK_S)


def _end(host: Host, goes: Callable[[Running], bool], told: set[int]) -> None:
    """Tells each of them once: they finish their work first."""
    for one in _replaced(host):
        if one.pid not in told and goes(one):
            told.add(one.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGTERM)


def _replaced(host: Host) -> list[Running]:
    with contextlib.suppress(psutil.Error):  # the host has gone at this moment
        return [one for one in running_on(host) if one.service in REPLACED]
    return []


async def _ready(url: str) -> set[tuple[str, int]]:
    """The services that the mesh knows as ready, with their processes."""
    with contextlib.suppress(ChoirError):
        async with Choir(url) as mesh:
            return {(lease.service, lease.pid) for lease in await mesh.nodes() if lease.state == "ready"}
    return set()
