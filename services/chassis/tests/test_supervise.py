"""No loop of a service dies unseen: the service ends with the reason in its log, and its lease goes."""

from __future__ import annotations

import sys

import pytest
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError

from infra.testing.plugin import SpawnService
from schemas import subjects
from services.chassis.supervise import Loops
from services.chassis.tests.mesh import eventually
from services.chassis.tests.test_runner import AGENT

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
DEADLINE_S = 40.0

LOOPS = {
    "lease": ("agent", "services.chassis.registry.lease", "Lease", "_put", "self._task"),
    "sampler": ("agent", "services.chassis.registry.host_sampler", "HostSampler", "sample", "True"),
    "agent heartbeats": ("agent", "services.chassis.work.loop", "WorkLoop", "_beat", "True"),
    "external workers": ("agent", "services.agent.workers.host", "WorkerHost", "_reconcile", "True"),
    "sweeper": ("router", "services.router.retention.sweeper", "Sweeper", "sweep", "True"),
    "scores": ("aggregator", "services.aggregator.scores.store", "Scores", "_write_for_ever", "True"),
    "place": ("shard_stage", "services.shard_stage.service", "ShardStage", "_keep_place", "True"),
    "ingest": ("metrics", "services.metrics.ingest.loop", "Ingest", "_step", "True"),
}
"""Each with the service that it belongs to, and the method that is broken, when."""


async def lease_is_gone(client: Client, service: str) -> bool:
    leases = await client.jetstream().key_value(subjects.NODES_BUCKET)
    try:
        entry = await leases.get(subjects.node_key(service, f"{service}-one"))
    except KeyNotFoundError:
        return True
    return not entry.value


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_service_whose_loop_fails_ends_and_says_why(
    loop: str, connection: Client, spawn_service: SpawnService
) -> None:
    service, module, name, method, when = LOOPS[loop]
    program = BROKEN.format(service=service, module=module, name=name, method=method, when=when)
    process = spawn_service(
        service,
        f"{service}-one",
        agent=AGENT if service == "agent" else None,
        env={"CHOIR_STAGE": STAGE} if service == "shard_stage" else None,
        command=[sys.executable, "-c", program],
    )
    assert await process.exited(DEADLINE_S) == 1
    said = process.log()
    assert f"its loop {loop!r} failed: ValueError: broken by the test" in said
    await eventually(lambda: lease_is_gone(connection, service), deadline_s=4)


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
