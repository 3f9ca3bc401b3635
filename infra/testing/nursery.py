"""A fork server for tests: services that a test starts without a supervisor cost no imports.

`python -m services.<name>` itself is run by the tests of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from infra.host.children.fork_server import MESSAGE_BYTES, MODULE, START_DEADLINE_S
from infra.host.children.processes import PREEXEC


class Forked:
    """A process that the nursery has forked: as much of `subprocess.Popen` as tests use."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, once it has ended."""
        self._nursery.listen(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; subprocess.TimeoutExpired if that does not come in time."""
        end_s = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left_s = None if end_s is None else end_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._nursery.listen(left_s)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing happens to a process that has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP, and return once it stands still."""
        self._nursery.pause(self.pid)


class Nursery:
    """The test's side: asks for processes, and hears of their end. `connection` leads to the nursery, which
    ends when it is closed; `process` is it, if it was started here."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        self._socket = connection
        self._process = process
        self._children: dict[int, Forked] = {}
        self._replies: list[int] = []

    @classmethod
    def in_folder(cls, folder: Path) -> Nursery:
        """A nursery of its own; `folder` is where services run."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(theirs.fileno())],
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                preexec_fn=PREEXEC,
                start_new_session=True,
            )
        return cls(ours, process)

    def start(self, module: str, env: Mapping[str, str], output: int) -> Forked:
        """Runs a module as `python -m` does, with this environment; `output` is a file that it writes to."""
        order = json.dumps({"module": module, "env": dict(env)}).encode()
        socket.send_fds(self._socket, [order], [output])
        pid = self._reply()
        self._children[pid] = Forked(self, pid)
        return self._children[pid]

    def another(self) -> socket.socket:
        """The connection to a fork server that this one has forked, and whose imports are done."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._socket, [json.dumps({"serve": True}).encode()], [theirs.fileno()])
        return ours

    def pause(self, pid: int) -> None:
        """SIGSTOP, and return once the process stands still (or has ended)."""
        self._socket.send(json.dumps({"pause": pid}).encode())
        self._reply()

    def listen(self, wait_s: float | None) -> None:
        """Takes what the nursery has to say: of the end of processes. Waits so long for a first word."""
        while select.select([self._socket], [], [], wait_s)[0]:
            self._take()
            wait_s = 0.0

    def close(self) -> None:
        """Ends it, and with it what it has forked."""
        self._socket.close()
        if self._process is not None:
            self._process.wait(START_DEADLINE_S)

    def _reply(self) -> int:
        end_s = time.monotonic() + START_DEADLINE_S
        while not self._replies:
            if not select.select([self._socket], [], [], end_s - time.monotonic())[0]:
                raise TimeoutError(f"the nursery does not answer within {START_DEADLINE_S} s")
            self._take()
        return self._replies.pop()

    def _take(self) -> None:
        message = self._socket.recv(MESSAGE_BYTES)
        if not message:
            raise RuntimeError("the process that forks services has ended")
        said = json.loads(message)
        if "imported" in said:
            return
        if "failed" in said:
            raise RuntimeError(f"nothing can be forked: {said['failed']}")
        if "code" in said:
            if (child := self._children.pop(said["pid"], None)) is not None:
                child.returncode = said["code"]
        else:
            self._replies.append(said["pid"])
