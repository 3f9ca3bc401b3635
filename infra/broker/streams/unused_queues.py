"""Removes queues of external workers that nobody uses any more, so that they do not grow in number for ever.

Only what was made for a worker is ever removed; its metadata says so. It goes when it has been empty and
unused for long. No command is lost: the stream keeps what comes without a queue, a queue that is made again
delivers it, and the router ends it when its time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError

from infra.broker.provision import existing_consumers
from infra.broker.streams.definitions import WORKER_MODEL_KEY
from schemas import subjects

UNUSED_S = 3_600.0
"""For so long a queue has to be empty, with nobody who pulls from it or could."""


@dataclass(frozen=True)
class Seen:
    """A model's queues: since when they were found unused, and how much they had delivered by then."""

    since_s: float
    delivered: int


class UnusedQueues:
    """Looks now and then. `in_use` tells the models that somebody serves, or is registered for."""

    def __init__(self, js: JetStreamContext, in_use: Callable[[], Collection[str]]) -> None:
        self._js = js
        self._in_use = in_use
        self._seen: dict[str, Seen] = {}

    async def look(self, now_s: float) -> list[str]:
        """Removes what has been unused for UNUSED_S; the models whose queues are gone.

        `now_s` is of a monotonic clock. Raises what nats-py raises while the broker does not answer.
        """
        queues: dict[str, list[ConsumerInfo]] = {}
        for info in (await existing_consumers(self._js, subjects.COMMANDS_STREAM)).values():
            model = (info.config.metadata or {}).get(WORKER_MODEL_KEY)
            if model is not None:
                queues.setdefault(model, []).append(info)
        in_use = self._in_use()
        self._seen = {
            model: self._judge(model, found, now_s)
            for model, found in queues.items()
            if model not in in_use and not any(map(_works, found))
        }
        gone = [model for model, seen in self._seen.items() if now_s - seen.since_s >= UNUSED_S]
        for model in gone:
            await self._remove(queues[model])
            del self._seen[model]
        return gone

    def _judge(self, model: str, found: Sequence[ConsumerInfo], now_s: float) -> Seen:
        delivered = sum(info.delivered.consumer_seq if info.delivered else 0 for info in found)
        seen = self._seen.get(model)
        return seen if seen is not None and seen.delivered == delivered else Seen(now_s, delivered)

    async def _remove(self, found: Sequence[ConsumerInfo]) -> None:
        for info in found:
            try:
                await self._js.delete_consumer(info.stream_name, info.name)
            except NotFoundError:
                continue  # another host has removed it


def _works(info: ConsumerInfo) -> bool:
    """Whether something is queued or in work, or somebody pulls."""
    return bool(info.num_pending or info.num_ack_pending or info.num_waiting)
