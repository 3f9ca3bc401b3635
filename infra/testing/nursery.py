"""A process that has imported the services, and forks one whenever a test starts one: imports cost a second.

A service that is started so is a process as any other, with an environment, an output and a session of its
own: it can be killed, paused and waited for. Only its imports were done before. `python -m services.<name>`
itself is what `choir up` runs, and the tests of that.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.host.processes import PREEXEC

PRELOADED = ("router", "aggregator", "summarizer", "agent", "gateway")
"""What starts no thread when it is imported. The others import the rest of what they need after the fork."""
MESSAGE_BYTES = 1 << 17
MODULE = "infra.testing.nursery"
START_DEADLINE_S = 120.0


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
    """The test's side: asks for processes, and hears of their end."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where services run."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(theirs.fileno())],
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                preexec_fn=PREEXEC,
                start_new_session=True,
            )
        self._children: dict[int, Forked] = {}
        self._replies: list[int] = []

    def start(self, module: str, env: Mapping[str, str], output: int) -> Forked:
        """Runs a module as `python -m` does, with this environment; `output` is a file that it writes to."""
        order = json.dumps({"module": module, "env": dict(env)}).encode()
        socket.send_fds(self._socket, [order], [output])
        pid = self._reply()
        self._children[pid] = Forked(self, pid)
        return self._children[pid]

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
        if "code" in said:
            self._children.pop(said["pid"]).returncode = said["code"]
        else:
            self._replies.append(said["pid"])


class Order:
    """A module to become, in a process that was forked for it."""

    def __init__(self, module: str, env: Mapping[str, str], output: int) -> None:
        self.module, self.env, self.output = module, env, output


def orders(connection: socket.socket) -> Iterator[Order]:
    """Forks for every order, and yields it in the child; ends, in the nursery, when the tests have gone."""
    running: dict[int, int] = {}
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != connection.fileno():
                poll.unregister(ready)
                os.close(ready)
                _, status = os.waitpid(pid := running.pop(ready), 0)
                _say(connection, pid=pid, code=os.waitstatus_to_exitcode(status))
                continue
            message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 1)
            if not message:
                return
            said = json.loads(message)
            if "pause" in said:
                _pause(said["pause"])
                _say(connection, pid=said["pause"])
                continue
            if not (pid := os.fork()):
                connection.close()
                for descriptor in running:
                    os.close(descriptor)
                yield Order(said["module"], said["env"], descriptors[0])
                return
            os.close(descriptors[0])
            running[descriptor := os.pidfd_open(pid)] = pid
            poll.register(descriptor, select.POLLIN)
            _say(connection, pid=pid)


def _pause(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def _say(connection: socket.socket, **fields: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        connection.send(json.dumps(fields).encode())


def become(order: Order) -> None:
    """Is from now on what `python -m <module>` would be."""
    if PREEXEC is not None:
        PREEXEC()
    os.setsid()
    os.dup2(order.output, 1)
    os.dup2(order.output, 2)
    os.close(order.output)
    os.environ.clear()
    os.environ.update(order.env)
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def main() -> None:
    """Imports the services, and forks them; the child ends as a program of its own does."""
    for service in PRELOADED:
        importlib.import_module(f"services.{service}.__main__")
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        for order in orders(connection):
            sys.argv[1:] = []
            become(order)


if __name__ == "__main__":
    main()
