"""No loop of a service dies unseen: the service ends with the reason in its log, and its lease goes."""

from __future__ import annotations

import ast
import socket
import sys
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError

from infra.testing.mesh import eventually
from infra.testing.plugin import REPOSITORY, SpawnService
from schemas import subjects
from schemas.nodes.workers import Worker
from services.chassis.process.supervise import Loops
from services.chassis.process.tests.test_runner import AGENT

BROKEN = """
from {module} import {name}
whole = {name}.{method}
async def broken(self, *_):
    if {when}:
        raise ValueError("broken by the test")
    return await whole(self)
{name}.{method} = broken
import runpy
runpy.run_module("services.{service}", run_name="__main__")
"""
STAGE = '{"name": "one", "models": [{"name": "alpha", "path": "/not/there.gguf"}]}'
DEADLINE_S = 180.0

LOOPS = {
    "lease": ("agent", "services.chassis.registry.lease", "Lease", "_put", "self._task"),
    "sampler": ("agent", "services.chassis.registry.host_sampler", "HostSampler", "sample", "True"),
    "agent heartbeats": ("agent", "services.chassis.work.loop", "WorkLoop", "_beat", "True"),
    "external workers": ("agent", "services.agent.workers.host", "WorkerHost", "_reconcile", "True"),
    "sweeper": ("router", "services.router.retention.sweeper", "Sweeper", "sweep", "True"),
    "scores": ("aggregator", "services.aggregator.scores.store", "Scores", "_write_for_ever", "True"),
    "place": ("shard_stage", "services.shard_stage.service", "ShardStage", "_keep_place", "True"),
    "ingest": ("metrics", "services.metrics.ingest.loop", "Ingest", "_step", "True"),
    "clock": ("router", "services.chassis.nats.clock", "BrokerClock", "_keep", "True"),
    "ensembles": ("router", "services.chassis.registry.ensembles", "Ensembles", "keep_looking", "True"),
    "fair queue": ("router", "services.router.tenancy.fair_queue", "FairQueue", "_keep", "True"),
    "placement": ("router", "services.router.placement.controller", "Controller", "_look_for_ever", "True"),
    "feedback": (
        "aggregator",
        "services.aggregator.scores.ledger",
        "FeedbackLedger",
        "_sweep_for_ever",
        "True",
    ),
    "parquet": ("metrics", "services.metrics.store.housekeeping", "Housekeeping", "_keep_exporting", "True"),
    "retention": ("metrics", "services.metrics.store.housekeeping", "Housekeeping", "_keep_dropping", "True"),
    "watch over models": ("agent", "services.agent.service", "Agent", "_watch", "True"),
    "what the store holds": ("agent", "services.agent.demand.host", "ModelsOnDemand", "_follow", "True"),
    "models on demand": ("agent", "services.agent.demand.host", "ModelsOnDemand", "_decide", "True"),
    "time": ("shard_stage", "services.shard_stage.service", "ShardStage", "_keep_time", "True"),
    "copies": ("modelstore", "services.modelstore.copies", "Copies", "keep", "True"),
    "batches": ("gateway", "services.gateway.openai.batches.runner", "BatchRunner", "run", "True"),
    "the list of models": ("gateway", "services.gateway.requests.models", "ModelList", "keep_fresh", "True"),
    "the listening socket": (
        "gateway",
        "services.gateway.http.connection.listener",
        "Listener",
        "_open_later",
        "True",
    ),
    "worker w1": ("agent", "services.agent.workers.external", "ExternalWorker", "_keep", "True"),
}
"""Each with the service that it belongs to, and the method that is broken, when."""
AT_ONCE = ("lease", "sweeper", "scores", "place", "ingest")
"""One of each service; the others are `soak`: what ends the service is the same for all."""
LOADING = {"name": "singer", "backend": "llama_cpp", "on_demand": {}}
WORKER = Worker(id="w1", type="openai", host="127.0.0.1", port=9, model="beta")


def loops_of_services() -> set[str]:
    """The names of the loops that services start, without what differs from one loop to the next."""
    names = set()
    for module in (REPOSITORY / "services").rglob("*.py"):
        if "tests" in module.parts:
            continue
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="start"), args=[_, ast.Constant(value=str(name))]):
                    names.add(name)
                case ast.Call(func=ast.Attribute(attr="start"), args=[_, ast.JoinedStr(values=parts)]):
                    fixed = [part.value for part in parts if isinstance(part, ast.Constant)]
                    names.add("".join(map(str, fixed)).strip())
    return names


async def lease_is_gone(client: Client, service: str) -> bool:
    leases = await client.jetstream().key_value(subjects.NODES_BUCKET)
    try:
        entry = await leases.get(subjects.node_key(service, f"{service}-one"))
    except KeyNotFoundError:
        return True
    return not entry.value


def test_every_loop_of_a_service_is_in_the_table() -> None:
    found = loops_of_services()
    assert {"lease", "heartbeats", "worker"} <= found
    assert [name for name in found if not any(name in loop for loop in LOOPS)] == []


@pytest.mark.parametrize(
    "loop", [loop if loop in AT_ONCE else pytest.param(loop, marks=pytest.mark.soak) for loop in LOOPS]
)
async def test_a_service_whose_loop_fails_ends_and_says_why(
    loop: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    service, module, name, method, when = LOOPS[loop]
    if loop.startswith("worker"):
        workers = await connection.jetstream().key_value(subjects.WORKERS_BUCKET)
        await workers.put(subjects.worker_key(WORKER.id), WORKER.to_bytes())
    program = BROKEN.format(service=service, module=module, name=name, method=method, when=when)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        agent = LOADING if name == "ModelsOnDemand" else AGENT
        port = taken.getsockname()[1] if name == "Listener" else 0
        process = spawn_service(
            service,
            f"{service}-one",
            agent=agent if service == "agent" else None,
            env={
                **({"CHOIR_STAGE": STAGE} if service == "shard_stage" else {}),
                **({"CHOIR_GATEWAY__PORT": str(port)} if service == "gateway" else {}),
                **({"CHOIR_MODELSTORE__FOLDER": str(tmp_path)} if service == "modelstore" else {}),
                **({"CHOIR_METRICS__FOLDER": str(tmp_path)} if service == "metrics" else {}),
            },
            command=[sys.executable, "-c", program],
        )
        assert await process.exited(DEADLINE_S) == 1
    said = process.log()
    assert f"its loop {loop!r} failed: ValueError: broken by the test" in said
    await eventually(lambda: lease_is_gone(connection, service), deadline_s=DEADLINE_S)


async def test_the_first_loop_that_fails_is_the_reason_and_one_that_ends_by_itself_has_failed_too() -> None:
    failures = 0

    def count() -> None:
        nonlocal failures
        failures += 1

    async def fails() -> None:
        raise ValueError("of its own")

    async def ends() -> None:
        return

    loops = Loops(count)
    loops.start(fails(), "one")
    await eventually(lambda: loops.failure)
    loops.start(ends(), "two")
    await eventually(lambda: not loops._running)
    assert (loops.failure, failures) == ("its loop 'one' failed: ValueError: of its own", 1)
    by_itself = Loops()
    by_itself.start(ends(), "two")
    await eventually(lambda: by_itself.failure)
    assert by_itself.failure == "its loop 'two' failed: it ended by itself"


async def test_a_loop_that_is_told_to_end_has_not_failed() -> None:
    async def goes_on() -> None:
        await eventually(lambda: False)

    loops = Loops()
    task = loops.start(goes_on(), "one")
    task.cancel()
    await eventually(task.done)
    assert loops.failure is None
