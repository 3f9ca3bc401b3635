"""Reads single keys from the terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

QUIT_KEYS = frozenset("qQ\x03\x04")


class Keyboard:
    """What has been typed since it was last asked for, and whether somebody wants to stop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.touched = asyncio.Event()
        self._typed = ""

    def typed(self, text: str) -> None:
        """Takes what was typed; nothing means that the terminal has gone."""
        if not text or QUIT_KEYS & set(text):
            self.stop.set()
        self._typed += text
        self.touched.set()

    def taken(self) -> str:
        """The keys since the last call."""
        typed, self._typed = self._typed, ""
        self.touched.clear()
        return typed

    def interrupt(self) -> None:
        """A signal says stop."""
        self.stop.set()
        self.touched.set()


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Hears every key, and SIGINT and SIGTERM; afterwards the terminal is as it was."""
    heard, loop, file = Keyboard(), asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(file)
    loop.add_signal_handler(signal.SIGINT, heard.interrupt)
    loop.add_signal_handler(signal.SIGTERM, heard.interrupt)
    loop.add_reader(file, lambda: heard.typed(os.read(file, 64).decode("utf-8", "replace")))
    try:
        tty.setcbreak(file)
        yield heard
    finally:
        loop.remove_reader(file)
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
        termios.tcsetattr(file, termios.TCSADRAIN, before)
