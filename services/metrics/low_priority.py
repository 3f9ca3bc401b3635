"""Events are stored first: what computes for statements has a low priority."""

from __future__ import annotations

import os
import sys
import threading

NICENESS = 10
"""Beside eight statements without an end events lay three times as long without it."""
LEAST_PRIORITY = 19


def low_niceness() -> int:
    """That of what computes for statements: NICENESS more than that of this process's main thread."""
    return min(LEAST_PRIORITY, os.getpriority(os.PRIO_PROCESS, os.getpid()) + NICENESS)


def lower_priority() -> None:
    """Lowers that of the thread it is called in, and of the threads that this one starts. Only on Linux has a
    thread its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), low_niceness())
