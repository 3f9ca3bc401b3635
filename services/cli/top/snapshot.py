"""One look at a mesh: leases and queue from the router, rates and latencies from the metrics service."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from schemas.errors import ChoirError
from schemas.message import Struct
from schemas.nodes.lease import NodeLease
from schemas.requests.queries import Rows
from services.cli.top.rows import (
    ModelRow,
    NodeRow,
    StageRow,
    WorkerRow,
    model_rows,
    own_slots,
    stage_rows,
    worker_rows,
)
from services.client.client import Choir
from services.client.missing_service import METRICS
from services.client.queries.query_file import shipped

QUERY_TIMEOUT_S = 3.0
NO_METRICS = "requests/s, tokens/s, latency, errors: no metrics service is live"


class Rates(Struct):
    """What happened within the last `window_s`; `p50_ms` and `p95_ms`: what clients waited on choir.ask."""

    window_s: float
    requests_per_s: float
    tokens_per_s: float
    failed: int
    refused: int
    error_share: float
    p50_ms: float | None = None
    p95_ms: float | None = None


class Snapshot(Struct):
    """The mesh as of `at_s`; `missing` says what could not be told, and why."""

    at_s: float
    url: str
    services: dict[str, int]
    models: tuple[str, ...]
    slots: int
    busy: int
    queued: int
    nodes: tuple[NodeRow, ...]
    served: tuple[ModelRow, ...] = ()
    workers: tuple[WorkerRow, ...] = ()
    stages: tuple[StageRow, ...] = ()
    rates: Rates | None = None
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


async def look(mesh: Choir, url: str, window_s: float) -> Snapshot:
    """One snapshot. Raises what `Choir.status` and `Choir.nodes` raise; without metrics it says so in it."""
    at_s = time.time()
    status, nodes = await mesh.status(), await mesh.nodes()
    rates: Rates | None = None
    lately: dict[str, dict[str, Any]] = {}
    missing: tuple[str, ...] = (NO_METRICS,)
    if METRICS in status.services:
        try:
            rates, lately = await _lately(mesh, at_s, window_s)
            missing = ()
        except ChoirError as error:
            missing = (f"requests/s, tokens/s, latency, errors: {error.message}",)
    return Snapshot(
        at_s=at_s,
        url=url,
        services=status.services,
        models=status.models,
        slots=status.slots,
        busy=status.busy,
        queued=status.queued,
        nodes=tuple(node_row(node, lately.get(node.instance), rates, window_s) for node in nodes),
        served=model_rows(nodes, status.queues),
        workers=worker_rows(nodes),
        stages=stage_rows(nodes),
        rates=rates,
        problems=status.problems,
        missing=missing,
    )


async def _lately(mesh: Choir, at_s: float, window_s: float) -> tuple[Rates, dict[str, dict[str, Any]]]:
    since = {"since_s": at_s - window_s}
    (mesh_row,) = (await _query(mesh, "recent_rates", since)).by_name()
    instances = {row["instance"]: row for row in (await _query(mesh, "recent_instances", since)).by_name()}
    return rates_of(mesh_row, window_s), instances


async def _query(mesh: Choir, name: str, parameters: dict[str, Any]) -> Rows:
    return await mesh.sql(shipped(name).statement, parameters, timeout_s=QUERY_TIMEOUT_S)


def rates_of(row: Mapping[str, Any], window_s: float) -> Rates:
    """Counts of a window as rates; errors are shares of all that was asked."""
    asked = row["requests"] + row["refused"]
    return Rates(
        window_s=window_s,
        requests_per_s=row["requests"] / window_s,
        tokens_per_s=row["tokens"] / window_s,
        failed=row["failed"],
        refused=row["refused"],
        error_share=(row["failed"] + row["refused"]) / asked if asked else 0.0,
        p50_ms=row["p50_ms"],
        p95_ms=row["p95_ms"],
    )


def node_row(
    node: NodeLease, lately: Mapping[str, Any] | None, rates: Rates | None, window_s: float
) -> NodeRow:
    """A lease, and what the instance has done lately, if that is known."""
    known = lately or {}
    generates = rates is not None and node.service == "agent"
    held = node.stage.held if node.stage is not None else None
    tokens_per_s = known.get("tokens", 0) / window_s if generates else held and held.tokens_per_s
    answers = generates or (rates is not None and held is not None and held.stage == 0)
    busy, slots = own_slots(node)
    return NodeRow(
        instance=node.instance,
        service=node.service,
        host=node.host,
        state=node.state,
        slots=slots,
        busy=busy,
        cpu_percent=node.cpu_percent,
        memory_used_bytes=node.memory_used_bytes,
        gpu_percent=max((gpu.utilization_percent for gpu in node.gpus), default=None),
        tasks_per_s=known.get("tasks", 0) / window_s if answers else None,
        tokens_per_s=tokens_per_s,
        broker_rtt_ms=known.get("broker_rtt_ms"),
    )
