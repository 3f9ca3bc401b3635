"""Faults that take more than a signal: of hosts, links, disks, clocks, memory, leaders and messages.

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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import nats
import nats.errors
import psutil
from nats.aio.client import Client
from nats.aio.msg import Msg

from loadtest.chaos import Chaos, Fault, Verb
from loadtest.trial.hosts import MODELS, Host, Hosts
from schemas import subjects
from services.client.mesh_url import find_mesh

CAPTURE_S = 1.0
MOST_COPIES = 20
FLAPS = 6
NEWER_VERSION = 99
NEWER_LIVES_S = 8.0
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
MEMORY_LEFT = 128 * 1024


class Strikes:
    """What can be done to hosts. `seed` decides whom it meets; `poisoned` and `newer` are the ids of the
    requests that it has made up."""

    def __init__(self, hosts: Hosts, seed: int, run: str) -> None:
        self._hosts = hosts
        self._random = random.Random(seed)
        self._run = run
        self._one_cable = asyncio.Lock()
        self._made_up = 0
        self.poisoned: list[str] = []
        self.newer: list[str] = []

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """Verb -> what does it."""
        own = {
            "restart": self._restart,
            "elect": self._elect,
            "partition": self._partition,
            "flap": self._flap,
            "fill": self._fill,
            "stall": self._stall,
            "starve": self._starve,
            "duplicate": self._duplicate,
            "poison": self._poison,
            "outdate": self._outdate,
            "end": self._end,
        }
        return {verb: _for_chaos(strike) for verb, strike in own.items()}

    def _host(self) -> Host:
        return self._random.choice(list(self._hosts.living))

    async def _restart(self, _fault: Fault) -> str:
        host = self._host()
        pid = host.broker_pid()
        if pid is None:
            return f"the broker of {host.name} is not there to be killed"
        os.kill(pid, signal.SIGKILL)
        return f"killed the broker of {host.name}"

    async def _elect(self, _fault: Fault) -> str:
        """Every stream that has copies gets another leader."""
        names = (subjects.COMMANDS_STREAM, subjects.RESULTS_STREAM, subjects.ANSWERS_STREAM)
        async with self._client() as client:
            for name in names:
                with contextlib.suppress(nats.errors.TimeoutError):
                    await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{name}", b"", timeout=3)
            with contextlib.suppress(nats.errors.TimeoutError):
                consumer = subjects.generate_consumer("interactive", MODELS[0])
                subject = f"$JS.API.CONSUMER.LEADER.STEPDOWN.{names[0]}.{consumer}"
                await client.request(subject, b"", timeout=3)
        return f"new leaders for {', '.join(names)} and a queue"

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
        async with self._one_cable:
            host = self._host()
            try:
                for _ in range(FLAPS):
                    host.set_link(False)
                    await asyncio.sleep(fault.pause_s / FLAPS / 2)
                    host.set_link(True)
                    await asyncio.sleep(fault.pause_s / FLAPS / 2)
            finally:
                host.set_link(True)
        return f"the link of {host.name} went {FLAPS} times within {fault.pause_s:g} s"

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
        """The kernel ends a process of the host for want of memory."""
        host = self._host()
        assert host.process is not None
        module = f"services.{fault.service}"
        found = [
            child
            for child in psutil.Process(host.process.pid).children(recursive=True)
            if module in child.cmdline()
        ]
        if not found:
            return f"{host.name} has no {fault.service} to be starved"
        victim = self._random.choice(found)
        group = MEMORY_GROUPS / f"choir-{victim.pid}"
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(MEMORY_LEFT))
            (group / "cgroup.procs").write_text(str(victim.pid))
            for _ in range(int(fault.pause_s * 10)):
                if not psutil.pid_exists(victim.pid):
                    return f"the kernel killed {fault.service} of {host.name}, which had no memory left"
                await asyncio.sleep(0.1)
            return f"{fault.service} of {host.name} went on with {MEMORY_LEFT >> 10} KiB more"
        finally:
            with contextlib.suppress(OSError):
                (MEMORY_GROUPS / "cgroup.procs").write_text(str(victim.pid))
            with contextlib.suppress(OSError):
                group.rmdir()

    async def _duplicate(self, _fault: Fault) -> str:
        """Commands that are under way come once more, as after a lost acknowledgement, without their id."""
        async with self._client() as client:
            copies = await _captured(client)
            for msg in copies:
                with contextlib.suppress(nats.errors.Error):
                    await client.jetstream().publish(msg.subject, msg.data)
        return f"{len(copies)} commands came twice"

    async def _poison(self, _fault: Fault) -> str:
        self._made_up += 1
        request_id = f"{self._run}-poison-{self._made_up}"
        async with self._client() as client:
            await client.jetstream().publish(
                subjects.generate("interactive", MODELS[0], request_id), b'{"no": "command'
            )
        self.poisoned.append(request_id)
        return "a command that nobody can read"

    async def _outdate(self, _fault: Fault) -> str:
        """A host of a newer version sends a command that no service here can read yet."""
        async with self._client() as client:
            copies = await _captured(client)
            for msg in copies[:1]:
                self._made_up += 1
                request_id = f"{self._run}-newer-{self._made_up}"
                command = json.loads(msg.data)
                command |= {"schema_version": NEWER_VERSION, "request_id": request_id, "of_the_future": True}
                command["deadline_at_s"] = command["deadline_at_s"] - 60 + NEWER_LIVES_S
                model = command.get("model", MODELS[0])
                await client.jetstream().publish(
                    subjects.generate("interactive", model, request_id), json.dumps(command).encode()
                )
                self.newer.append(request_id)
        return f"{len(copies[:1])} command of a newer version"

    async def _end(self, _fault: Fault) -> str:
        """The last host: the first one has the event database."""
        host = self._hosts.living[-1]
        await asyncio.to_thread(host.end)
        return f"{host.name} is gone for good, with its broker"

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        client = await inside(self._hosts.url)
        try:
            yield client
        finally:
            await client.close()


async def inside(url: str) -> Client:
    """A client with every right."""

    async def failed(_error: Exception) -> None:
        """A broker that is gone is what is tested."""

    mesh = find_mesh(url)
    return await nats.connect(
        mesh.servers,
        **mesh.credentials,
        inbox_prefix=subjects.inbox_prefix("loadtest").encode(),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
        error_cb=failed,
    )


def _for_chaos(strike: Callable[[Fault], Awaitable[str]]) -> Verb:
    async def struck(_chaos: Chaos, fault: Fault) -> str:
        return await strike(fault)

    return struck


def _filled(disk: Path) -> Path:
    """A file that takes all that is left of a disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return filler


async def _captured(client: Client) -> list[Msg]:
    """Commands to agents that are published now."""
    found: list[Msg] = []

    async def keep(msg: Msg) -> None:
        if len(found) < MOST_COPIES:
            found.append(msg)

    subscription = await client.subscribe("choir.command.generate.>", cb=keep)
    await asyncio.sleep(CAPTURE_S)
    await subscription.unsubscribe()
    return found


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
