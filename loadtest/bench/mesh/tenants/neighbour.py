"""What a tenant's flood costs its neighbour: one tenant over its limit sends 20,000 requests in two seconds,
and another one's asks are held against the same in quiet.

All is in processes of its own, with the accounts of `choir up`. Quiet and flood alternate.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from loadtest.bench.flood import Order, Outcome
from loadtest.bench.mesh.overhead import SINGLE, TIMEOUT_S, WARM_UP, Call, ask, latencies_ms
from loadtest.bench.mesh.tenants.two_tenants import SLOW, flooding, two_tenants
from loadtest.bench.report import Report, at_most
from schemas import subjects
from schemas.replies import Accepted

ROUNDS = 5
REQUESTS, OVER_S = 20_000, 2.0
REST_S = 1.0
LASTING = {"prompt": "Wait.", "model": SLOW, "timeout_s": 3600}
OFF = ("aggregator", "summarizer", "metrics", "gateway", "modelstore")


async def until_done(call: Call, task: asyncio.Task[Any]) -> list[float]:
    """Latencies of one request after another until the task is done; infinite of one that failed."""
    taken: list[float] = []
    while not task.done():
        latencies, failed = await latencies_ms(call, 1)
        taken += [math.inf] if failed else latencies
    return taken


async def measure(folder: Path) -> dict[str, Any]:
    """Latencies of the neighbour's asks, and what became of the flood, of one run."""
    limits = "limits = { requests_in_flight = 1 }"
    order = Order(subject=subjects.ASK, body=SINGLE.decode(), count=REQUESTS, over_s=OVER_S)
    async with two_tenants(folder, without=OFF, local=limits) as mesh:
        lasting = await mesh.local.request(subjects.SUBMIT, json.dumps(LASTING).encode(), timeout=TIMEOUT_S)
        Accepted.read(lasting.data)  # from now on the tenant is at its limit
        call = ask(mesh.other, SINGLE)
        await latencies_ms(call, WARM_UP)
        quiet, beside, floods = [], [], []
        for _ in range(ROUNDS):
            quiet += await until_done(call, asyncio.create_task(asyncio.sleep(OVER_S)))
            async with flooding(mesh.supervisor.url, order) as answered:
                beside += await until_done(call, answered)
            floods.append(Outcome.model_validate_json(answered.result()))
            await asyncio.sleep(REST_S)
    taken = {"quiet": quiet, "flooded": beside}
    p95s = {name: statistics.quantiles(values, n=20)[-1] for name, values in taken.items()}
    p50s = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "p50_ms": p50s,
        "p95_ms": p95s,
        "max_ms": {name: max(values) for name, values in taken.items()},
        "asks": {name: len(values) for name, values in taken.items()},
        "p50_ratio": p50s["flooded"] / p50s["quiet"],
        "p95_ratio": p95s["flooded"] / p95s["quiet"],
        "flood_s": statistics.median(one.took_s for one in floods),
        "lost": sum(math.isinf(latency) for latency in quiet + beside),
        "unanswered": sum(one.sent - one.overloaded for one in floods),
        "doubled": sum(one.doubled for one in floods),
    }


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        raw = uvloop.run(measure(Path(folder)))
    return Report(
        bench="neighbour",
        raw=raw,
        targets=(
            at_most("ask p50 beside a flood / in quiet", raw["p50_ratio"], 2.0),
            at_most("ask p95 beside a flood / in quiet", raw["p95_ratio"], 2.0),
            at_most("asks lost", raw["lost"], 0.0),
            at_most("of the flood without a typed reply", raw["unanswered"], 0.0),
            at_most("of the flood with several replies", raw["doubled"], 0.0),
        ),
        notes=(
            f"{REQUESTS} requests in {OVER_S:g} s, all over the limit, {ROUNDS} times; beside them asks of "
            "another tenant, one after another. The flood has a process of its own at a low priority.",
        ),
    )
