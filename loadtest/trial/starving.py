"""A process that gets no more memory: the limit that is put on it, what makes it want some, and what it then
did."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from schemas.errors import ChoirError
from services.client.client import Choir

Effect = Literal["killed", "refused", "nothing"]
EFFECTS: tuple[Effect, ...] = ("killed", "refused", "nothing")

LIMIT_BYTES = 1024 * 1024
"""Less than any process has: the kernel gives it no page more, and takes none away."""
PROMPT_CHARACTERS = 400_000
AT_ONCE = 12
ASK_PATIENCE_S = 10.0
LOOK_S = 0.1
COMPLAINTS = ("MemoryError", "Cannot allocate memory", "can't start new thread", "bad_alloc")
"""What Python, the kernel and C++ say when there is no memory."""


@dataclass(frozen=True)
class Starved:
    """What became of `who` while the kernel gave it no memory: whether it `ended`, and how often it was heard
    to complain."""

    who: str
    ended: bool
    complaints: int

    @property
    def effect(self) -> Effect:
        """Killed, or refused memory and alive; nothing if it did not need any: then nothing was shown."""
        if self.ended:
            return "killed"
        return "refused" if self.complaints else "nothing"

    def __str__(self) -> str:
        told = {
            "killed": "ended, for there was no memory",
            "refused": f"was refused memory, said so {self.complaints} times, and went on",
            "nothing": "needed no memory: nothing was shown",
        }
        return f"{self.who} {told[self.effect]}"


def effects(starved: Iterable[Starved]) -> dict[Effect, int]:
    """How many of them did what."""
    counts = Counter(one.effect for one in starved)
    return {effect: counts[effect] for effect in EFFECTS}


def complaints(text: str) -> int:
    """How many lines of a log say that there was no memory."""
    return sum(any(words in line for words in COMPLAINTS) for line in text.splitlines())


def said_since(log: Path) -> Callable[[], str]:
    """What a log says from now on, each time it is asked."""
    begin = log.stat().st_size if log.exists() else 0

    def said() -> str:
        with log.open("rb") as file:
            file.seek(begin)
            return file.read().decode(errors="replace")

    return said


@contextlib.contextmanager
def no_memory(process: psutil.Process) -> Iterator[None]:
    """As long as this lasts the kernel gives a process no memory (RLIMIT_AS); what it has stays."""
    before, hard = resource.prlimit(process.pid, resource.RLIMIT_AS)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (LIMIT_BYTES, hard))
    try:
        yield
    finally:
        if process.is_running():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_AS, (before, hard))


async def starve(
    process: psutil.Process, who: str, log: Path, url: str, models: Iterable[str], longest_s: float
) -> Starved:
    """Gives a process no memory while long questions come, until that shows or for `longest_s`.

    `log` is where its errors are. Others of the mesh at `url` answer what it does not.
    """
    said, models = said_since(log), tuple(models)

    def now() -> Starved:
        return Starved(who, _ended(process), complaints(said()))

    with no_memory(process):
        asking = asyncio.create_task(_ask_long_questions(url, models))
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(longest_s):
                    while now().effect == "nothing":  # noqa: ASYNC110  (the process and its log are looked at)
                        await asyncio.sleep(LOOK_S)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        return now()


def _ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def _ask_long_questions(url: str, models: tuple[str, ...]) -> None:
    async with Choir(url) as choir:

        async def ask(model: str) -> None:
            with contextlib.suppress(ChoirError):  # the request that nobody has memory for
                await choir.ask("x " * (PROMPT_CHARACTERS // 2), model=model, timeout_s=ASK_PATIENCE_S)

        while True:
            await asyncio.gather(*(ask(model) for model in models for _ in range(AT_ONCE)))
