"""A process that has imported the services, and forks one whenever it is told to: imports cost a second each.

A service that is started so is a process as any other, with an environment, an output, a session and a name
of its own: it can be killed, paused and waited for. Only its imports were done before. The process has one
thread and keeps no connection but the one by which it is told what to do.

Orders come as JSON, one in each packet: `{"module", "env"}` with the descriptor of a file to write to is
answered by `{"pid"}`, and later by `{"pid", "code"}`, or by `{"failed"}` with the reason; `{"pause"}` by its
`{"pid"}`; `{"serve"}` with the descriptor of a connection makes another such process, and is not answered.
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
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import setproctitle

from infra.host.children.processes import PREEXEC

FORKS = hasattr(os, "pidfd_open")
"""Only Linux has what this needs; where it is missing each service is a program of its own."""
PRELOADED = ("router", "aggregator", "summarizer", "agent", "gateway", "modelstore")
"""What starts no thread when it is imported. The others import the rest of what they need after the fork."""
MESSAGE_BYTES = 1 << 17
MODULE = "infra.host.children.fork_server"
START_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Order:
    """A module to become, in a process that was forked for it."""

    module: str
    env: dict[str, str]
    output: int


def orders(connection: socket.socket) -> Iterator[Order]:
    """Forks for every order, and yields it in the child; ends, in the server, when nobody orders any more."""
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
            try:
                message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 1)
            except ConnectionResetError:  # whoever orders was killed, and had not heard all
                return
            if not message:
                return
            said = json.loads(message)
            if "pause" in said:
                _pause(said["pause"])
                _say(connection, pid=said["pause"])
                continue
            try:
                pid = os.fork()
            except OSError as error:  # the host has no room for another process: the others go on
                os.close(descriptors[0])
                _say(connection, failed=str(error))
                continue
            if not pid:
                connection.close()
                for descriptor in running:
                    os.close(descriptor)
                if "serve" in said:
                    yield from _another(descriptors[0])
                    return
                order = Order(said.pop("module"), said.pop("env"), descriptors[0])
                del message, said  # the order alone has the environment
                yield order
                return
            os.close(descriptors[0])
            running[descriptor := os.pidfd_open(pid)] = pid
            poll.register(descriptor, select.POLLIN)
            if "serve" not in said:
                _say(connection, pid=pid)


def _another(descriptor: int) -> Iterator[Order]:
    _leave()
    with socket.socket(fileno=descriptor) as connection:
        _say(connection, imported=True)
        yield from orders(connection)


def _pause(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def _say(connection: socket.socket, **fields: int | str) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.send(json.dumps(fields).encode())


def _leave() -> None:
    """A session of its own, and an end with the process that forked it."""
    if PREEXEC is not None:
        PREEXEC()
    os.setsid()


def become(order: Order) -> None:
    """Is from now on what `python -P -m <module>` would be."""
    _leave()
    os.dup2(order.output, 1)
    os.dup2(order.output, 2)
    os.close(order.output)
    os.environ.clear()
    os.environ.update(order.env)
    order.env.clear()  # whoever forgets a secret finds it in one place
    setproctitle.setproctitle(f"{sys.executable} -P -m {order.module}")
    sys.modules.pop(f"{order.module}.__main__", None)  # it is run, not imported
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def preload() -> None:
    """Imports the services."""
    setproctitle.getproctitle()  # the name is written where the first environment lies: it is looked for now
    for service in PRELOADED:
        importlib.import_module(f"services.{service}.__main__")
    gc.freeze()


def fork_for(connection: socket.socket) -> None:
    """Forks services as it is told; each ends as a program of its own does."""
    _say(connection, imported=True)
    for order in orders(connection):
        sys.argv[1:] = []
        become(order)


def main() -> None:
    """A server in a process of its own: the argument is the descriptor of its connection."""
    preload()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        fork_for(connection)


if __name__ == "__main__":
    main()
