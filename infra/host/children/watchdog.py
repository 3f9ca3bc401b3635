"""Finds services that live and do nothing: their process is there, and their lease has long run out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from infra.host.children.child import Child
from services.chassis.registry.directory import Directory

LOOK_INTERVAL_S = 2.0
LONGEST_STEP_S = 2 * LOOK_INTERVAL_S
"""What counts between two looks: while this process, or its host, stood still, nobody could be heard."""
HUNG_AFTER_S = 60.0


class Watchdog:
    """Ends what hangs, so that it is started again.

    A process counts from its first lease on: how long a start may take is judged elsewhere. Where nobody at
    all has a lease, or `is_connected` says that the broker is away, that is the cause, and nobody hangs.
    Nor does one whose name another process has in its lease: only one of the two can be seen.
    """

    def __init__(
        self,
        children: Iterable[Child],
        directory: Directory,
        is_connected: Callable[[], bool],
        patience_s: float = HUNG_AFTER_S,
    ) -> None:
        self._children = tuple(children)
        self._directory = directory
        self._is_connected = is_connected
        self._patience_s = patience_s
        self._silent_s: dict[int, float] = {}

    async def keep(self) -> None:
        """Looks after them, for ever."""
        looked_s = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            before_s, looked_s = looked_s, time.monotonic()
            self.look(min(looked_s - before_s, LONGEST_STEP_S))

    def look(self, step_s: float) -> None:
        """Takes note of who has a lease, `step_s` after the look before; ends who had none for too long."""
        leases = {(lease.service, lease.instance): lease.pid for lease in self._directory.nodes}
        if not leases or not self._is_connected():
            self._silent_s = dict.fromkeys(self._silent_s, 0.0)
            return
        silent_s: dict[int, float] = {}
        for child in self._children:
            pid, told = child.pid, leases.get((child.command.service, child.name))
            if pid is None or (told != pid and pid not in self._silent_s):
                continue
            silent_s[pid] = 0.0 if told is not None else self._silent_s[pid] + step_s
            if silent_s[pid] > self._patience_s:
                self._end(child)
                del silent_s[pid]
        self._silent_s = silent_s

    def _end(self, child: Child) -> None:
        child.forward(
            child.name,
            f"lives, and has not been heard of for {self._patience_s:g} s: it hangs, and is ended",
        )
        child.kill()
