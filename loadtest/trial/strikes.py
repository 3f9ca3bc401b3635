"""Faults that take more than a signal: of hosts, links, disks, clocks, memory, leaders, messages, versions.

Each is one function of the table VERBS, in the form of those of loadtest/chaos.py, which strikes at the
times of a plan. A strike returns when what it did is undone; what it says is what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from infra.testing.networks import ALL_PERCENT
from loadtest.chaos import Fault, Verb
from loadtest.trial.hosts import MODELS, Host, Hosts
from loadtest.trial.messages import MessageStrikes, for_chaos
from loadtest.trial.starving import Starved, starve
from loadtest.trial.versions import SetBack, older_schemas, set_back
from services.client.finding.mesh_url import find_mesh

FLAPS = 6
FLAP_S = 5.0
"""How long a link that flaps slowly is away, and then there."""
LOST_PERCENT = 30


class Strikes:
    """What can be done to hosts, and with `messages` to what they send. `seed` decides whom it meets.

    `starved` says of each process that was given no memory what it did, `set_back` of each host that was of
    an older version for a while how many of its services were.
    """

    def __init__(self, hosts: Hosts, seed: int, run: str) -> None:
        self._hosts = hosts
        self._random = random.Random(seed)
        self.messages = MessageStrikes(hosts.url, run)
        self._one_cable = asyncio.Lock()
        self._one_upgrade = asyncio.Lock()
        self.starved: list[Starved] = []
        self.set_back: list[SetBack] = []

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """Verb -> what does it."""
        own = {
            "restart": self._restart,
            "partition": self._partition,
            "flap": self._flap,
            "sway": self._flap_slowly,
            "lose": self._lose,
            "deafen": self._deafen,
            "mute": self._mute,
            "fill": self._fill,
            "stall": self._stall,
            "starve": self._starve,
            "mix": self._mix,
            "end": self._end,
        }
        return {**self.messages.verbs, **{verb: for_chaos(strike) for verb, strike in own.items()}}

    def _host(self) -> Host:
        return self._random.choice(list(self._hosts.living))

    async def _restart(self, _fault: Fault) -> str:
        host = self._host()
        pid = host.broker_pid()
        if pid is None:
            return f"the broker of {host.name} is not there to be killed"
        os.kill(pid, signal.SIGKILL)
        return f"killed the broker of {host.name}"

    async def _partition(self, fault: Fault) -> str:
        """One at a time: of three hosts two have to see one another."""
        async with self._one_cable:
            host = self._host()
            host.set_link(False)
            try:
                await asyncio.sleep(fault.pause_s)
            finally:
                host.set_link(True)
        return f"cut {host.name} off for {fault.pause_s:g} s"

    async def _flap(self, fault: Fault) -> str:
        return await self._flapped(fault, FLAPS, fault.pause_s / FLAPS / 2)

    async def _flap_slowly(self, fault: Fault) -> str:
        """Each time long enough for others to notice, and to notice that it is back."""
        return await self._flapped(fault, max(1, round(fault.pause_s / FLAP_S / 2)), FLAP_S)

    async def _flapped(self, fault: Fault, times: int, pause_s: float) -> str:
        async with self._one_cable:
            host = self._host()
            try:
                for _ in range(times):
                    host.set_link(False)
                    await asyncio.sleep(pause_s)
                    host.set_link(True)
                    await asyncio.sleep(pause_s)
            finally:
                host.set_link(True)
        return f"the link of {host.name} went {times} times within {fault.pause_s:g} s"

    async def _lose(self, fault: Fault) -> str:
        """A bad cable: TCP sends again and again, ever more seldom, and connections stay."""
        return await self._lost(fault, LOST_PERCENT, LOST_PERCENT)

    async def _deafen(self, fault: Fault) -> str:
        """What a host says arrives, and it hears nothing."""
        return await self._lost(fault, ALL_PERCENT, 0)

    async def _mute(self, fault: Fault) -> str:
        """A host hears all, and nothing that it says arrives."""
        return await self._lost(fault, 0, ALL_PERCENT)

    async def _lost(self, fault: Fault, to_percent: int, from_percent: int) -> str:
        """One at a time: of three hosts two have to hear one another."""
        async with self._one_cable:
            host = self._host()
            host.set_loss(to_percent, from_percent)
            try:
                await asyncio.sleep(fault.pause_s)
            finally:
                host.set_loss(0, 0)
        lost = f"{to_percent} % of the packets to {host.name} and {from_percent} % of those from it"
        return f"{lost} were lost for {fault.pause_s:g} s"

    async def _fill(self, fault: Fault) -> str:
        if fault.service == "metrics":
            host, disk = self._hosts.hosts[0], self._hosts.hosts[0].metrics_disk
        else:
            host = self._host()
            disk = host.broker_disk
        filler = _filled(disk)
        try:
            await asyncio.sleep(fault.pause_s)
        finally:
            filler.unlink()
        return f"the disk of {host.name}'s {fault.service} was full for {fault.pause_s:g} s"

    async def _stall(self, fault: Fault) -> str:
        """A client that listens to everything and reads nothing."""
        stalled = await asyncio.to_thread(_deaf_listener, self._host().url)
        try:
            await asyncio.sleep(fault.pause_s)
        finally:
            stalled.close()
        return f"a client that listened to all did not read for {fault.pause_s:g} s"

    async def _starve(self, fault: Fault) -> str:
        """The kernel gives a process of a host no memory, while there is work that takes some."""
        host = self._host()
        assert host.process is not None
        module = f"services.{fault.service}"
        found = [
            child
            for child in psutil.Process(host.process.pid).children(recursive=True)
            if module in " ".join(child.cmdline()).split()
        ]
        if not found:
            return f"{host.name} has no {fault.service} to be starved"
        victim, who = self._random.choice(found), f"{fault.service} of {host.name}"
        starved = await starve(victim, who, host.log, self._hosts.url, MODELS, fault.pause_s)
        self.starved.append(starved)
        return str(starved)

    async def _mix(self, fault: Fault) -> str:
        """One at a time: the other hosts have the present version."""
        async with self._one_upgrade:
            host = self._host()
            schemas = await asyncio.to_thread(older_schemas, self._hosts.folder)
            found = await set_back(host, schemas, self._hosts.url, fault.pause_s)
        self.set_back.append(found)
        return str(found)

    async def _end(self, _fault: Fault) -> str:
        """The last host: the first one has the event database."""
        host = self._hosts.living[-1]
        await asyncio.to_thread(host.end)
        return f"{host.name} is gone for good, with its broker"


def _filled(disk: Path) -> Path:
    """A file that takes all that is left of a disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return filler


def _deaf_listener(url: str) -> socket.socket:
    mesh, address = find_mesh(url), urlsplit(url)
    raw = socket.create_connection((str(address.hostname), address.port or 4222), timeout=5)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    context = mesh.tls
    listener = raw if context is None else context.wrap_socket(raw, server_hostname=address.hostname)
    assert isinstance(listener, (socket.socket, ssl.SSLSocket))
    words = {"verbose": False, "user": mesh.user, "pass": mesh.password}
    listener.sendall(b"CONNECT " + json.dumps(words).encode() + b"\r\nSUB choir.> 1\r\nPING\r\n")
    return listener
