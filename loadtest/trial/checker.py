"""What the streams say of a run afterwards: lost, doubled, different, left over, missing.

Clients only know what they were told. The checker reads what is stored: each request that a client was not
refused has one result, nothing is left in the queues, and every result has its event.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from loadtest.generate.request_record import LOST, TIMED_OUT
from loadtest.outcome.measurements import INTERRUPTED, Measurements
from schemas import subjects

SETTLE_PATIENCE_S = 90.0
UNKNOWN_TO_CLIENT = (LOST, TIMED_OUT, INTERRUPTED)
"""How requests ended of which a client knows no outcome."""
FETCH = 1_000


@dataclass
class Verdict:
    """What came of a run. Each of the first seven has to be empty or 0.

    `lost` were taken and have no result, `doubled` have more than one, `different` were answered to their
    clients in more than one way, `left_over` are commands that nobody works on any more, `missing` are
    results without an event, `not_in_dead` are messages that nobody can read and that are not in DEAD,
    `half_registered` is what the mesh does not know of what runs, or knows of what does not.
    `refused` are requests that were turned away at the door with an error that says so, by its code: those
    are whole.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    not_in_dead: list[str] = field(default_factory=list)
    half_registered: list[str] = field(default_factory=list)
    sent: int = 0
    answered: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    unheard: int = 0
    dead: int = 0
    longest_wait_s: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether nothing was lost, and nothing came twice."""
        return not any(
            (
                *(self.lost, self.doubled, self.different, self.left_over, self.missing),
                *(self.not_in_dead, self.half_registered),
            )
        )

    def figures(self) -> dict[str, object]:
        """As JSON has it."""
        return {"whole": self.whole, **asdict(self)}


async def check(
    client: Client,
    run: str,
    measured: Measurements,
    poisoned: Collection[str] = (),
    newer: Collection[str] = (),
    half_registered: Collection[str] = (),
) -> Verdict:
    """Reads the streams of the mesh, when its queues are empty or SETTLE_PATIENCE_S is over. What is
    `half_registered` somebody else has found out."""
    js = client.jetstream(timeout=10)
    ids = {int(number): f"{run}-{number}" for number in measured.number}
    errors = {
        ids[int(number)]: str(error) for number, error in zip(measured.number, measured.error, strict=True)
    }
    left_over = await _until_empty(js)
    results = await _subjects_of(js, subjects.RESULTS_STREAM, subjects.ALL_RESULTS)
    stored = {
        name.removeprefix(subjects.ALL_RESULTS.removesuffix(">")): count for name, count in results.items()
    }
    completed = await _completed(js, run)
    dead = await _subjects_of(js, subjects.DEAD_STREAM, subjects.ALL_DEAD)
    in_dead = {name.rpartition(".")[2] for name in dead}
    of_run = [one for one in ids.values() if one in stored]
    unknown = [one for one, error in errors.items() if one not in stored]
    waits = measured.done_s - measured.sent_s
    return Verdict(
        lost=[one for one in unknown if errors[one] in (*UNKNOWN_TO_CLIENT, "")]
        + [one for one in newer if one not in stored],
        doubled=[one for one in of_run if stored[one] > 1 or completed[one] > 1],
        different=[ids[int(number)] for number in measured.number[measured.results > 1]],
        left_over=left_over,
        missing=[one for one in of_run if not completed[one]],
        not_in_dead=[one for one in poisoned if one not in in_dead],
        half_registered=list(half_registered),
        sent=len(ids),
        answered=int(measured.good.sum()),
        failed=dict(Counter(errors[one] for one in of_run if errors[one])),
        refused=dict(Counter(errors[one] for one in unknown if errors[one] not in UNKNOWN_TO_CLIENT)),
        unheard=sum(error in UNKNOWN_TO_CLIENT for error in errors.values()),
        dead=sum(dead.values()),
        longest_wait_s=round(float(waits[measured.good].max()), 3) if measured.good.any() else 0.0,
    )


async def _until_empty(js: JetStreamContext) -> list[str]:
    end_s = time.monotonic() + SETTLE_PATIENCE_S
    while True:
        left: list[str] = []
        try:
            left = list(await _subjects_of(js, subjects.COMMANDS_STREAM, subjects.ALL_COMMANDS))
            if not left:
                return []
        except nats.errors.Error:
            if time.monotonic() > end_s:
                raise
        if time.monotonic() > end_s:
            return left
        await asyncio.sleep(0.5)


async def _subjects_of(js: JetStreamContext, stream: str, pattern: str) -> dict[str, int]:
    """How many messages each subject of a stream has, as its leader says."""
    info = await js.stream_info(stream, subjects_filter=pattern)
    return info.state.subjects or {}


async def _completed(js: JetStreamContext, run: str) -> Counter[str]:
    """How many different events say that a request of the run was completed, by request."""
    seen: dict[str, set[str]] = {}
    consumer = await js.add_consumer(
        subjects.EVENTS_STREAM,
        api.ConsumerConfig(
            filter_subject=subjects.event("*", "request_completed"),
            ack_policy=api.AckPolicy.NONE,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=60.0,
        ),
    )
    pulled = await js.pull_subscribe_bind(consumer.name, subjects.EVENTS_STREAM)
    left = consumer.num_pending or 0
    while left > 0:
        batch = await pulled.fetch(min(FETCH, left), timeout=10)
        left -= len(batch)
        for msg in batch:
            event = json.loads(msg.data)
            if str(event["request_id"]).startswith(f"{run}-"):
                seen.setdefault(event["request_id"], set()).add(event["event_id"])
    return Counter({request: len(events) for request, events in seen.items()})
