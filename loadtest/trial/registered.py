"""Whether the mesh knows what runs: every instance of a living host once, ready, with the models that it has.

What runs is what the kernel says: the processes under each host's `choir up`. What the mesh knows is what a
client is told (`choir nodes`) who asks at that host. All hosts share the numbers of processes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil

from loadtest.trial.hosts import MODELS, Host
from schemas.errors import ChoirError
from schemas.nodes.lease import NodeLease
from services.client.client import Choir

SETTLE_PATIENCE_S = 90.0
LOOK_S = 1.0
NOT_A_SERVICE = "cli"
_MODULE = re.compile(r"-m services\.(\w+)(?: |$)")


@dataclass(frozen=True)
class Running:
    """A process of a service on a host."""

    host: str
    service: str
    pid: int

    def __str__(self) -> str:
        return f"{self.service} of {self.host}, process {self.pid},"


def differences(running: Iterable[Running], leases: Sequence[NodeLease]) -> list[str]:
    """What is wrong, in words: nothing if each of the running is known once and is ready, nothing else is
    known, and each host with agents serves every one of MODELS once."""
    known: dict[tuple[str, int], list[NodeLease]] = {}
    for lease in leases:
        known.setdefault((lease.service, lease.pid), []).append(lease)
    wrong: list[str] = []
    served: dict[str, Counter[str]] = {}
    for one in running:
        match known.pop((one.service, one.pid), []):
            case []:
                wrong.append(f"{one} runs and is not there")
            case [lease]:
                if lease.state != "ready":
                    why = "" if lease.problem is None else f": {lease.problem.message}"
                    wrong.append(f"{one} is {lease.state}{why}")
                if one.service == "agent":
                    served.setdefault(one.host, Counter()).update(model.name for model in lease.models)
            case several:
                wrong.append(f"{one} is there {len(several)} times")
    wrong += [
        f"{lease.service} {lease.instance}, process {lease.pid}, is there and does not run"
        for left in known.values()
        for lease in left
    ]
    return wrong + [
        f"{host} serves {', '.join(sorted(models.elements()))}"
        for host, models in served.items()
        if models != Counter(MODELS)
    ]


def running_on(host: Host) -> list[Running]:
    """The services of a host that run at this moment, without the processes that these have themselves."""
    if host.process is None or host.process.poll() is not None:
        return []
    found: dict[int, tuple[int, str]] = {}
    for child in psutil.Process(host.process.pid).children(recursive=True):
        try:
            module = _MODULE.search(" ".join(child.cmdline()))
            if module and module[1] != NOT_A_SERVICE and child.status() != psutil.STATUS_ZOMBIE:
                found[child.pid] = child.ppid(), module[1]
        except psutil.NoSuchProcess:
            continue
    return [
        Running(host.name, service, pid) for pid, (parent, service) in found.items() if parent not in found
    ]


async def half_registered(hosts: Sequence[Host], patience_s: float = SETTLE_PATIENCE_S) -> list[str]:
    """What is still wrong after `patience_s`; nothing as soon as whoever asks, at any of these hosts, is told
    what runs on all of them."""
    end_s = time.monotonic() + patience_s
    while wrong := [fault for host in hosts for fault in await _told_at(host, hosts)]:
        if time.monotonic() > end_s:
            break
        await asyncio.sleep(LOOK_S)
    return wrong


async def _told_at(host: Host, hosts: Sequence[Host]) -> list[str]:
    try:
        async with Choir(host.url) as mesh:
            leases = await mesh.nodes()
    except ChoirError as error:
        return [f"at {host.name}: {error.message}"]
    running = [one for each in hosts for one in running_on(each)]
    return [f"at {host.name}: {fault}" for fault in differences(running, leases)]
