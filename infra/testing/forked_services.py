"""Supervisors whose fork server has imported everything already: for tests that are about something else.

`python -m infra.testing.forked_services` is `choir` with such a supervisor.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from infra.host.children import forked
from infra.host.children.fork_server import fork_for, preload
from infra.host.children.forked import FreshServer
from infra.host.children.processes import PREEXEC

MODULE = "infra.testing.forked_services"


@contextlib.contextmanager
def forking(connected: Callable[[], socket.socket]) -> Iterator[None]:
    """Meanwhile each supervisor of this process has the fork server that `connected` gives."""
    with mock.patch.object(forked, "start_server", lambda: FreshServer(connected())):
        yield


def _server_of_its_own() -> socket.socket:
    """Forks it from this process, which has imported the services."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        return ours
    if PREEXEC is not None:
        PREEXEC()
    os.setsid()
    ours.close()
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    with theirs:
        fork_for(theirs)
    sys.exit()


def main() -> None:
    """`choir`, with all its arguments."""
    preload()
    server = _server_of_its_own()
    with forking(lambda: server):
        runpy.run_module("services.cli", run_name="__main__")


if __name__ == "__main__":
    main()
