"""Many jobs, each of them done once, in however many runs: `choir batch`, `choir eval`, `choir matrix`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Protocol, TypeVar

from schemas.errors import ChoirError
from services.client.bulk.bounded import spread

PAUSE_S = 0.5
"""Between two attempts, where the mesh does not say how long."""

JobT = TypeVar("JobT")
DoneT = TypeVar("DoneT")
KeptT_contra = TypeVar("KeptT_contra", contravariant=True)


class JobJournal(Protocol[KeptT_contra]):
    """Where what is done is kept: a journal of `services.client.bulk.journal`, or what is made of one."""

    def is_done(self, key: str) -> bool:
        """Whether a job is done, so that it is passed over."""

    def keep(self, key: str, done: KeptT_contra) -> None:
        """Keeps what came of a job; it survives this process."""


async def run_bulk(
    jobs: Iterable[JobT],
    work: Callable[[JobT], Awaitable[DoneT]],
    journal: JobJournal[DoneT],
    key: Callable[[JobT], str],
    room: Callable[[], int],
    *,
    after: Callable[[JobT, DoneT], Awaitable[None]] | None = None,
) -> AsyncGenerator[DoneT, None]:
    """What `work` makes of each job that the journal does not have, as it is done; by then it is kept.

    At most `room()` jobs are under way, and never none; a job is taken from `jobs` when there is room for it.
    `after` is the end of a job, once its outcome is kept. An error that `work` raises, such as
    MeshUnreachable, ends the run: the other jobs are cancelled, and the error is raised. So does closing the
    generator. What is a job's own failure `work` returns.
    """

    async def one(job: JobT) -> DoneT:
        done = await work(job)
        journal.keep(key(job), done)
        if after is not None:
            await after(job, done)
        return done

    waiting = (job for job in jobs if not journal.is_done(key(job)))
    async with aclosing(spread(waiting, one, room)) as results:
        async for done in results:
            yield done


async def until_taken(
    ask: Callable[[], Awaitable[DoneT]],
    patience_s: Mapping[type[ChoirError], float],
    *,
    pause_s: float = PAUSE_S,
    longest_pause_s: float = math.inf,
) -> DoneT:
    """What `ask` gives, which is called again for as long as the mesh does not take it yet.

    `patience_s` says by what errors that shows, and for how many seconds after the first call each of them
    is borne; then it is raised, and any other one at once. The error may say how long the pause is.
    """
    started_s = time.monotonic()
    while True:
        try:
            return await ask()
        except tuple(patience_s) as error:
            borne_s = next(seconds for kind, seconds in patience_s.items() if isinstance(error, kind))
            if time.monotonic() - started_s > borne_s:
                raise
            await asyncio.sleep(min(error.retry_after_s or pause_s, longest_pause_s))
