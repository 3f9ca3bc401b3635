"""Child processes that never outlive their parent, and end when they are told to."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from schemas.errors import ConfigurationError

POLL_S = 0.01
LAST_LINES = 12

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_forks = 0
"""The process that forks, as a child finds it."""


def _about_to_fork() -> None:
    global _forks
    _forks = os.getpid()


os.register_at_fork(before=_about_to_fork)


def _die_with_parent() -> None:
    """Run in the child before exec: the kernel ends it when the thread that started it ends (prctl(2)). It
    ends at once if its parent is gone already, of which the kernel would not tell it."""
    if _LIBC is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not a handler that exec is about to take away
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != _forks:
            os.kill(os.getpid(), signal.SIGTERM)


PREEXEC: Callable[[], None] | None = _die_with_parent if _LIBC is not None else None
"""For `preexec_fn`. Start children from the main thread: the signal comes when their thread ends."""


class Process(Protocol):
    """What is asked of a process that somebody else has started: `subprocess.Popen` has it."""

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def pause(process: subprocess.Popen[bytes]) -> None:
    """SIGSTOP, and return once the process stands still (or has ended)."""
    process.send_signal(signal.SIGSTOP)
    if sys.platform == "linux" and process.returncode is None:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


async def ended(process: Process, deadline_s: float) -> bool:
    """Wait for a process to end; False if it is still there when the deadline is over."""
    return await until(lambda: process.poll() is not None, deadline_s)


async def until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Wait for a condition that nobody signals; False if it does not hold in time."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def terminate(process: Process, deadline_s: float) -> None:
    """SIGTERM, and SIGKILL if the process has not ended by the deadline. Wakes it first if it is paused."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        if not await ended(process, deadline_s):
            process.kill()
    process.wait()


def last_lines(*logs: Path, count: int = LAST_LINES) -> str:
    """The end of some log files, for an error message."""
    lines: list[str] = []
    for log in logs:
        if log.is_file():
            lines += log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-count:]) or "(the log is empty)"


def writable_folder(folder: Path, what: str) -> Path:
    """Create a folder, and make sure that files can be put there; ConfigurationError says why not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(f"{what} {folder} cannot be written: {error.strerror}") from error
    return folder.resolve()
