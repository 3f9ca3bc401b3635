"""Runs a command on a pseudo-terminal of a given width, as a person would see it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

ROWS = 40
DEADLINE_S = 120.0
"""How long a person would bear with a busy machine; what works takes a small part of it."""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class Terminal:
    """A running command and its screen."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._raw = b""

    @property
    def text(self) -> str:
        """All that was written, without colours and cursor movements."""
        return ESCAPES.sub("", self._raw.decode(errors="replace")).replace("\r\n", "\n")

    def wait_for(self, text: str, deadline_s: float = DEADLINE_S) -> None:
        """Reads until `text` was written."""
        end_s = time.monotonic() + deadline_s
        while text not in self.text:
            if time.monotonic() > end_s or not self._read():
                raise AssertionError(f"{text!r} was not written; this was:\n{self.text}")

    def type(self, keys: str) -> None:
        """Types, as a person would; `\\x03` is Ctrl-C and `\\x04` is Ctrl-D."""
        os.write(self._master, keys.encode())

    def insist(self, keys: str, done: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Types again each second, as a person would: a key typed while readline sets up the line is lost."""
        end_s = time.monotonic() + deadline_s
        while not done():
            if time.monotonic() > end_s:
                raise AssertionError(f"{keys!r} did nothing; this was written:\n{self.text}")
            self.type(keys)
            again_s = time.monotonic() + 1.0
            while not done() and time.monotonic() < again_s:
                self._read()

    def exit_code(self, deadline_s: float = DEADLINE_S) -> int:
        """Reads what is left, and waits for the end."""
        end_s = time.monotonic() + deadline_s
        while self._read() and time.monotonic() < end_s:
            pass
        return self.process.wait(max(1.0, end_s - time.monotonic()))

    def _read(self) -> bool:
        """Reads what is there; False once nobody can write any more."""
        ready, _, _ = select.select([self._master], [], [], 0.1)
        if not ready:
            return self.process.poll() is None
        try:
            block = os.read(self._master, 65_536)
        except OSError:  # Linux says EIO when the last writer has closed
            return False
        self._raw += block
        return bool(block)


@contextmanager
def on_terminal(command: Sequence[str], env: Mapping[str, str], columns: int = 100) -> Iterator[Terminal]:
    """Starts a command on a terminal of its own; what still runs at the end is killed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    without_size = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**without_size, "TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            os.close(master)


def _take_terminal() -> None:
    """In the child: standard input becomes its controlling terminal, so that Ctrl-C is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
