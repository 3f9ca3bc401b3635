"""What the time of a refusal tells of another tenant's requests: whether their ids are refused as fast as ids
that nobody has, when they are fetched, cancelled, or given feedback on.

All is in processes of its own, with the accounts of `choir up`. Half of the ids have a result, others wait
in the queue. Another's id and one of nobody's take turns, in an order that is drawn.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from nats.aio.client import Client

from loadtest.bench.mesh.tenants.two_tenants import FAST, SLOW, two_tenants
from loadtest.bench.report import Report, at_most
from schemas import subjects
from schemas.errors import UnknownRequest
from schemas.replies import Accepted, ErrorReply, Result
from services.chassis.identity import new_id

PAIRS, WARM_UP = 1_000, 50
AT_ONCE = 32
TIMEOUT_S = 30.0
CONFIDENCE, RESAMPLES, SEED = 0.99, 9_999, 1
US_PER_S = 1e6
LASTING_S = 3600
ASKED: dict[str, tuple[str, dict[str, str]]] = {
    "fetch": (subjects.FETCH, {}),
    "cancel": (subjects.CANCEL, {}),
    "feedback": (subjects.FEEDBACK, {"correct": "Paris"}),
}
OFF = ("summarizer", "metrics", "gateway", "modelstore")


async def ids_of_another(owner: Client, count: int) -> list[str]:
    """Ids of requests of `owner`, every other one with a result."""
    ids, turns = [new_id() for _ in range(count)], iter(range(count))

    async def ask() -> None:
        for number in turns:
            waits = number % 2 == 1
            asked = {"prompt": "Wait.", "model": SLOW if waits else FAST, "request_id": ids[number]}
            subject = subjects.SUBMIT if waits else subjects.ASK
            body = json.dumps(asked | {"timeout_s": LASTING_S}).encode()
            reply = await owner.request(subject, body, timeout=TIMEOUT_S)
            (Accepted if waits else Result).read(reply.data)

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return ids


async def refusal_us(client: Client, operation: str, request_id: str) -> tuple[float, bool]:
    """How long it took to be told that an id is unknown, and whether that is what was told."""
    subject, fields = ASKED[operation]
    body = json.dumps({"request_id": request_id, **fields}).encode()
    began_s = time.perf_counter()
    reply = await client.request(subject, body, timeout=TIMEOUT_S)
    taken_us = (time.perf_counter() - began_s) * US_PER_S
    return taken_us, ErrorReply.read(reply.data).error.code == UnknownRequest.code


def difference(another: Sequence[float], none: Sequence[float]) -> dict[str, float]:
    """The medians, how much later the first is, and the interval of that: pairs drawn again (percentiles of
    the bootstrap; Efron and Tibshirani 1993, ch. 13)."""
    pairs = np.array([another, none])
    dice = np.random.default_rng(SEED)
    n = pairs.shape[1]
    drawn = np.array([np.median(pairs[:, dice.integers(0, n, n)], axis=1) for _ in range(RESAMPLES)])
    ends = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], ends)
    medians = np.median(pairs, axis=1)
    return {
        "another_p50_us": float(medians[0]),
        "none_p50_us": float(medians[1]),
        "difference_us": float(medians[0] - medians[1]),
        "low_us": float(low),
        "high_us": float(high),
    }


async def measure(folder: Path) -> dict[str, Any]:
    """Medians and their differences for each operation, and replies that said anything else, of one run."""
    dice = random.Random(SEED)
    async with two_tenants(folder, without=OFF) as mesh:
        theirs = await ids_of_another(mesh.local, PAIRS + WARM_UP)
        taken: dict[str, dict[str, list[float]]] = {name: {"another": [], "none": []} for name in ASKED}
        wrong = 0
        for number, another in enumerate(theirs):
            ids = {"another": another, "none": new_id()}
            for operation in ASKED:
                for whose in dice.sample(sorted(ids), len(ids)):
                    taken_us, right = await refusal_us(mesh.other, operation, ids[whose])
                    wrong += not right
                    if number >= WARM_UP:
                        taken[operation][whose].append(taken_us)
    return {
        **{operation: difference(by["another"], by["none"]) for operation, by in taken.items()},
        "wrong_replies": wrong,
    }


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        raw = uvloop.run(measure(Path(folder)))
    beside = {name: max(raw[name]["low_us"], -raw[name]["high_us"], 0.0) for name in ASKED}
    return Report(
        bench="unknown-ids",
        raw=raw,
        targets=(
            *(
                at_most(f"{name}: 0 is outside of the interval by so many us", beside[name], 0.0)
                for name in ASKED
            ),
            at_most("replies but unknown_request", raw["wrong_replies"], 0.0),
        ),
        notes=(
            f"{PAIRS} ids of another tenant and as many of nobody's, once for each operation, one after "
            f"another; the interval is that of {CONFIDENCE:.0%}; by chance 0 is outside of one in a hundred.",
        ),
    )
