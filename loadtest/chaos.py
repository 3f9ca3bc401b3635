"""Faults under load: what is done to the mesh, and when. Only processes of this host are touched."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import re
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import nats.errors
import psutil

from loadtest.faults import WrongOption
from schemas.errors import ChoirError
from services.client.client import Choir

PAUSE_S = 5.0
ACTION = re.compile(r"([a-z]+)-([a-z_]+)@([0-9.]+)(?::([0-9.]+))?")
BROKER = "broker"
SERVICES = ("agent", "aggregator", "router", "summarizer", "shard_stage", "metrics")


@dataclass(frozen=True, slots=True)
class Fault:
    """`verb` is done to an instance of `service` `at_s` seconds after the start; a pause lasts `pause_s`."""

    verb: str
    service: str
    at_s: float
    pause_s: float = PAUSE_S

    def __str__(self) -> str:
        lasting = f" for {self.pause_s:g} s" if self.verb == "pause" else ""
        return f"{self.verb} {self.service}{lasting}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault as it came about."""

    at_s: float
    text: str


def parse_faults(text: str, duration_s: float) -> tuple[Fault, ...]:
    """`kill-agent@30,pause-agent@45:5,restart-broker@60`; without times they are spread over the run.

    Raises WrongOption for what cannot be read.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    spread = [duration_s * (number + 1) / (len(parts) + 1) for number in range(len(parts))]
    return tuple(
        _fault(part if "@" in part else f"{part}@{at_s:.3f}", duration_s)
        for part, at_s in zip(parts, spread, strict=True)
    )


def _fault(text: str, duration_s: float) -> Fault:
    found = ACTION.fullmatch(text)
    if found is None:
        raise WrongOption(f"--chaos {text}: VERB-SERVICE@SECONDS, such as kill-agent@30 or pause-agent@45:5")
    verb, service, at, pause = found.groups()
    if verb not in VERBS or service not in (*SERVICES, BROKER) or (verb == "restart") != (service == BROKER):
        raise WrongOption(
            f"--chaos {text}: there are kill- and pause- with {', '.join(SERVICES)}, and restart-broker"
        )
    at_s, pause_s = _seconds(at, text), _seconds(pause, text) if pause else PAUSE_S
    if at_s >= duration_s:
        raise WrongOption(f"--chaos {text}: the run lasts {duration_s:g} s only")
    return Fault(verb, service, at_s, pause_s)


def _seconds(text: str, fault: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise WrongOption(f"--chaos {fault}: {text} is not a number of seconds") from error
    if not math.isfinite(seconds):
        raise WrongOption(f"--chaos {fault}: {text} is not a number of seconds")
    return seconds


class Chaos:
    """Does the faults of a run to the mesh at `url`, and remembers when they came about."""

    def __init__(
        self,
        url: str,
        faults: Iterable[Fault],
        seed: int,
        on_mark: Callable[[Mark], None],
        verbs: Mapping[str, Verb] | None = None,
    ) -> None:
        """`verbs` are more than those of VERBS, or others in their place."""
        self._url = url
        self._verbs = {**VERBS, **(verbs or {})}
        self._faults = sorted(faults, key=lambda fault: fault.at_s)
        self._random = random.Random(seed)
        self._on_mark = on_mark
        self._paused: set[int] = set()
        self.marks: list[Mark] = []

    async def run(self, clock: Callable[[], float]) -> None:
        """Each fault at its time, on the clock of the run."""
        try:
            async with asyncio.TaskGroup() as group:
                for fault in self._faults:
                    group.create_task(self._strike(fault, clock))
        finally:
            for pid in self._paused:
                _signal(pid, signal.SIGCONT)

    async def _strike(self, fault: Fault, clock: Callable[[], float]) -> None:
        await asyncio.sleep(max(0.0, fault.at_s - clock()))
        try:
            what = await self._verbs[fault.verb](self, fault)
        except (ChoirError, nats.errors.Error, OSError) as error:
            what = f"could not {fault}: {str(error) or type(error).__name__}"
        self._mark(Mark(clock(), what))

    def _mark(self, mark: Mark) -> None:
        self.marks.append(mark)
        self._on_mark(mark)

    async def _kill(self, fault: Fault) -> str:
        found = await self._victim(fault.service)
        if found is None:
            return f"no {fault.service} of this host to kill"
        instance, pid = found
        _signal(pid, signal.SIGKILL)
        return f"killed {instance}"

    async def _pause(self, fault: Fault) -> str:
        found = await self._victim(fault.service)
        if found is None:
            return f"no {fault.service} of this host to pause"
        instance, pid = found
        self._paused.add(pid)
        _signal(pid, signal.SIGSTOP)
        await asyncio.sleep(fault.pause_s)
        _signal(pid, signal.SIGCONT)
        self._paused.discard(pid)
        return f"paused {instance} for {fault.pause_s:g} s"

    async def _restart(self, _fault: Fault) -> str:
        """The broker is killed; whoever runs it starts it again."""
        pid = await asyncio.to_thread(_listener_of, self._url)
        if pid is None:
            return "the broker is not a process of this host"
        _signal(pid, signal.SIGKILL)
        return "killed the broker"

    async def _victim(self, service: str) -> tuple[str, int] | None:
        """An instance of a service on this host, drawn with the seed: its name and process."""
        async with Choir(self._url) as mesh:
            leases = [
                lease
                for lease in await mesh.nodes()
                if lease.service == service
                and lease.host == socket.gethostname()
                and psutil.pid_exists(lease.pid)
            ]
        if not leases:
            return None
        chosen = self._random.choice(sorted(leases, key=lambda lease: lease.instance))
        return chosen.instance, chosen.pid


Verb = Callable[[Chaos, Fault], Awaitable[str]]
VERBS: dict[str, Verb] = {
    "kill": Chaos._kill,
    "pause": Chaos._pause,
    "restart": Chaos._restart,
}


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _listener_of(url: str) -> int | None:
    """The process that listens on a URL's port, if it is a NATS server of this host."""
    port = urlsplit(url).port
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
            continue
        if connection.laddr[1] == port:
            with contextlib.suppress(psutil.Error):
                if "nats-server" in psutil.Process(connection.pid).name():
                    return connection.pid
    return None
