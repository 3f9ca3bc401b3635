"""Services that a fork server starts for a supervisor: their imports are done once for all of them.

Where there is none, or it has gone, a service is started as a program of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.host.children.child import Running, ServiceCommand, start_process
from infra.host.children.fork_server import FORKS, MESSAGE_BYTES, MODULE, START_DEADLINE_S
from infra.host.children.processes import PREEXEC, terminate
from infra.host.children.surroundings import general_of

END_DEADLINE_S = 5.0
OWN = ("CHOIR_", "PYTHONUNBUFFERED")


class NotForked(OSError):
    """Raised when the fork server has ended, does not answer, or cannot fork."""


@dataclass(frozen=True)
class FreshServer:
    """A fork server that was just started: the connection to it, and the process if it is a child of ours."""

    connection: socket.socket
    process: subprocess.Popen[bytes] | None = None


def start_server() -> FreshServer:
    """Starts one, which begins to import at once. Its environment is what all services have."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(theirs.fileno())],
            env={**general_of(os.environ), "PYTHONUNBUFFERED": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            preexec_fn=PREEXEC,
            start_new_session=True,
        )
    return FreshServer(ours, process)


class Forked:
    """A service that was forked: as much of `asyncio.subprocess.Process` as a supervisor uses."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def send_signal(self, number: int, /) -> None:
        """Nothing happens to a process that has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait(self) -> int:
        """Waits for its end; the exit code."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self, code: int) -> None:
        """It has ended."""
        self.returncode = code
        self._ended.set()


class ForkServer:
    """Starts services. `say` is told when one cannot be forked."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._stopping = False
        self._link: _Link | None = None

    def warm(self) -> None:
        """Begins to import what services need. Nothing happens where nothing can be forked."""
        if FORKS and (self._link is None or self._link.gone):
            self._link = _Link(start_server())

    async def start(self, command: ServiceCommand) -> Running:
        """Starts a service, with a pipe for what it writes."""
        *python, module = command.arguments
        if not FORKS or python != [sys.executable, "-P", "-m"] or _has_secrets(command.env):
            return await start_process(command)
        try:
            self.warm()
            assert self._link is not None
            return await self._link.fork(module, command.env)
        except OSError as error:
            if self._stopping:
                raise
            self._say(f"{command.instance} starts by itself, for it cannot be forked: {error}")
            return await start_process(command)

    async def stop(self) -> None:
        """Starts nothing more: whoever waits for the imports waits no longer."""
        self._stopping = True
        if self._link is not None:
            self._link.give_up_importing()

    async def close(self) -> None:
        """Ends the server, when no service runs any more."""
        if self._link is not None:
            await self._link.close()


def _has_secrets(env: Mapping[str, str]) -> bool:
    """Whether a service is told what others are not, but for its settings: an agent's keys of workers. What
    passes through the fork server might be found in the memory of those that are forked later."""
    general = general_of(env)
    return any(not (name in general or name.startswith(OWN)) for name in env)


class _Link:
    """The connection to one fork server."""

    def __init__(self, server: FreshServer) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = server.process
        self._connection = server.connection
        self._imported = asyncio.Event()
        self._ordered: deque[tuple[asyncio.Future[Forked], asyncio.StreamReader]] = deque()
        self._running: dict[int, Forked] = {}
        self.gone = False
        self._connection.setblocking(False)
        self._loop.add_reader(self._connection, self._take)

    async def fork(self, module: str, env: Mapping[str, str]) -> Forked:
        """A new process that is `python -P -m <module>` with this environment. Raises NotForked."""
        theirs, ours = os.pipe()
        try:
            output = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(output)
            await self._loop.connect_read_pipe(lambda: protocol, os.fdopen(theirs, "rb"))
            async with asyncio.timeout(START_DEADLINE_S):
                await self._imported.wait()
                return await self._order({"module": module, "env": dict(env)}, ours, output)
        except NotForked:
            raise
        except TimeoutError as error:
            raise NotForked(f"the fork server does not answer within {START_DEADLINE_S:g} s") from error
        except OSError as error:
            raise NotForked(f"the fork server cannot be told: {error}") from error
        finally:
            os.close(ours)

    async def close(self) -> None:
        """Ends the server."""
        self._hang_up()
        if self._process is not None:
            await terminate(self._process, END_DEADLINE_S)

    def give_up_importing(self) -> None:
        """Nobody waits any longer for a server that imports still."""
        if not self._imported.is_set():
            self._lose()

    def _order(
        self, order: Mapping[str, Any], descriptor: int, output: asyncio.StreamReader
    ) -> asyncio.Future[Forked]:
        if self.gone:
            raise NotForked("the fork server has ended")
        message = json.dumps(order).encode()
        if len(message) > MESSAGE_BYTES:
            raise NotForked(f"its environment has {len(message)} bytes, {MESSAGE_BYTES} can be told")
        socket.send_fds(self._connection, [message], [descriptor])
        started: asyncio.Future[Forked] = self._loop.create_future()
        self._ordered.append((started, output))
        return started

    def _take(self) -> None:
        """Hears what the server says: that it has imported, who was started, and who has ended."""
        try:
            message = self._connection.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._lose()
            return
        said = json.loads(message)
        if "imported" in said:
            self._imported.set()
        elif "code" in said:
            self._running.pop(said["pid"]).end(said["code"])
        elif "failed" in said:
            started, _ = self._ordered.popleft()
            if not started.cancelled():
                started.set_exception(NotForked(said["failed"]))
        else:
            started, output = self._ordered.popleft()
            self._running[said["pid"]] = forked = Forked(said["pid"], output)
            if started.cancelled():  # it came too late: it was started by itself
                forked.send_signal(signal.SIGKILL)
            else:
                started.set_result(forked)

    def _lose(self) -> None:
        """The server has ended, so the kernel ends what it has forked: nobody else will tell of that."""
        self._hang_up()
        self._imported.set()
        for started, _ in self._ordered:
            if not started.cancelled():
                started.set_exception(NotForked("the fork server has ended"))
        self._ordered.clear()
        for forked in self._running.values():
            self._look_after(forked)

    def _look_after(self, forked: Forked) -> None:
        try:
            descriptor = os.pidfd_open(forked.pid)
        except ProcessLookupError:
            forked.end(-signal.SIGTERM)
            return

        def gone() -> None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
            forked.end(-signal.SIGTERM)

        self._loop.add_reader(descriptor, gone)

    def _hang_up(self) -> None:
        if not self.gone:
            self.gone = True
            self._loop.remove_reader(self._connection)
            self._connection.close()
