"""Single keys from the terminal, and Ctrl-C, as one wish: to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

QUIT_KEYS = frozenset(b"qQ\x03\x04")


@contextmanager
def until_quit() -> Iterator[asyncio.Event]:
    """Sets its event when q, Ctrl-C or Ctrl-D is typed; afterwards the terminal is as it was."""
    stop, loop, keyboard = asyncio.Event(), asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        typed = os.read(keyboard, 64)
        if not typed or QUIT_KEYS & set(typed):
            stop.set()

    before = termios.tcgetattr(keyboard)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(keyboard, read)
    try:
        tty.setcbreak(keyboard)
        yield stop
    finally:
        loop.remove_reader(keyboard)
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
