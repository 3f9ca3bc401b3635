"""The queues of the models: how many commands wait for each, and how many are in work.

The broker tells it of all consumers in one reply, which costs the same however much is queued. Who asks
within a second of another is told the same, so it does not matter how many ask.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from pydantic_core import from_json, to_json

from schemas import subjects
from schemas.errors import BrokerUnavailable, ChoirError
from schemas.replies import ModelQueue
from services.chassis.logs import get_logger

LOOK_EVERY_S = 1.0
PAUSE_SHARE = 50
"""A look that took long is followed by a pause of so many times that: what is held has to be counted by its
subjects, one by one."""
AFTER_FAILURE_S = 15.0
KEPT_S = 5.0
"""So long what was seen is told while nothing newer is."""
TIMEOUT_S = 1.0

log = get_logger("router.queues")


class Queues:
    """Looks when somebody asks. `holds` says whether commands may be held outside of their queues."""

    def __init__(self, client: Client, holds: Callable[[], bool]) -> None:
        self._client = client
        self._js = JetStreamContext(client, timeout=TIMEOUT_S)
        self._holds = holds
        self._turn = asyncio.Lock()
        self._found: dict[str, ModelQueue] = {}
        self._found_at_s = -KEPT_S
        self._next_s = 0.0

    async def of_models(self, served: Iterable[str]) -> dict[str, ModelQueue]:
        """The queue of each model that is served, and of any other for which something waits; nothing if the
        broker does not say."""
        async with self._turn:  # who comes meanwhile waits for the same look
            if time.monotonic() >= self._next_s:
                await self._look()
        if time.monotonic() >= self._found_at_s + KEPT_S:
            return {}
        names = set(served)
        queues = {
            name: queue for name, queue in self._found.items() if name in names or queue != ModelQueue()
        }
        return {name: queues.get(name, ModelQueue()) for name in sorted(names | queues.keys())}

    async def _look(self) -> None:
        started_s = time.monotonic()
        try:
            self._found = await self._counted()
        except (ChoirError, nats.errors.Error) as error:
            log.warning("the queues could not be counted", why=str(error) or type(error).__name__)
            self._next_s = time.monotonic() + AFTER_FAILURE_S
            return
        self._found_at_s = time.monotonic()
        took_s = self._found_at_s - started_s
        self._next_s = self._found_at_s + min(max(LOOK_EVERY_S, PAUSE_SHARE * took_s), KEPT_S)

    async def _counted(self) -> dict[str, ModelQueue]:
        waiting: Counter[str] = Counter()
        in_work: Counter[str] = Counter()
        for consumer in await self._consumers():
            model = subjects.model_of_consumer(consumer["name"])
            if model is not None:
                waiting[model] += consumer["num_pending"]
                in_work[model] += consumer["num_ack_pending"]
        if self._holds():
            waiting.update(await self._held())
        return {name: ModelQueue(waiting=waiting[name], in_work=in_work[name]) for name in waiting}

    async def _consumers(self) -> list[dict[str, Any]]:
        """What the broker tells of all consumers of the queues, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            asked = to_json({"offset": len(found)})
            subject = subjects.consumer_list(subjects.COMMANDS_STREAM)
            told = from_json((await self._client.request(subject, asked, timeout=TIMEOUT_S)).data)
            if "error" in told:
                raise BrokerUnavailable(f"the broker says: {told['error'].get('description')}")
            page = told.get("consumers") or ()
            found += page
            if not page or len(found) >= told["total"]:
                return found

    async def _held(self) -> Counter[str]:
        """How many commands are held for the queue of each model."""
        info = await self._js.stream_info(
            subjects.COMMANDS_STREAM, subjects_filter=subjects.all_held_generates()
        )
        held: Counter[str] = Counter()
        for subject, count in (info.state.subjects or {}).items():
            held[subjects.model_of_generate(subject)] += count
        return held
