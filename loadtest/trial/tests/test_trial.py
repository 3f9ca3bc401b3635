"""Three real hosts in networks of their own, under faults, and the checker that judges them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nats.aio.client import Client

from infra.broker.local_cluster import LocalCluster, connect
from infra.broker.provision import provision
from infra.testing.networks import NEEDED, allowed
from infra.testing.plugin import SpawnService
from loadtest.chaos import Chaos, Fault
from loadtest.generate.arrivals import Rate
from loadtest.generate.plan import LoadPlan
from loadtest.generate.request_record import OK, TIMED_OUT, RequestRecord
from loadtest.generate.workloads import AskOptions
from loadtest.outcome.measurements import Measurements, read_records, write_records
from loadtest.session import Session
from loadtest.trial import checker
from loadtest.trial.__main__ import KINDS, main, plan_faults
from loadtest.trial.checker import check
from loadtest.trial.hosts import MODELS
from loadtest.trial.messages import MessageStrikes
from loadtest.trial.registered import Running, differences
from loadtest.trial.soak import main as soak_main
from schemas import subjects
from schemas.nodes.lease import NodeLease, NodeState, ServedModel
from services.chassis.nats.streams import Storage
from services.chassis.telemetry.events import written


def measured_of(folder: Path, errors: dict[int, str]) -> Measurements:
    records = []
    for number, error in errors.items():
        record = RequestRecord(number, "single", 0.0, sent_s=0.0, results=1)
        record.end(1.5, error)
        records.append(record)
    write_records(folder / "records.parquet", records, 0, 0.0)
    return read_records([folder / "records.parquet"])


async def store(client: Client, request_id: str, *, told: int = 1) -> None:
    """A result, and so many events that tell of it."""
    await Storage(client).store_once(subjects.result(request_id), b"{}")
    for number in range(told):
        fact = {"event_id": f"{request_id}-{number}", "request_id": request_id}
        subject = subjects.event("agent", "request_completed")
        await client.jetstream().publish(subject, written("request_completed", fact))


async def test_a_run_of_which_everything_is_stored_once_is_whole(connection: Client, tmp_path: Path) -> None:
    measured = measured_of(tmp_path, {1: OK, 2: "overloaded"})
    await store(connection, "run-1")
    verdict = await check(connection, "run", measured)
    assert verdict.whole
    assert (verdict.sent, verdict.answered, verdict.refused) == (2, 1, {"overloaded": 1})
    assert verdict.longest_wait_s == 1.5


async def test_what_is_wrong_is_named(
    connection: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker, "SETTLE_PATIENCE_S", 0.0)
    measured = measured_of(tmp_path, {1: TIMED_OUT, 2: OK, 3: OK, 4: OK})
    measured = replace(measured, results=np.where(measured.number == 4, 2, measured.results))
    for number, told in ((2, 2), (3, 0), (4, 1)):
        await store(connection, f"run-{number}", told=told)
    left = subjects.generate("interactive", "alpha", "run-9")
    await connection.jetstream().publish(left, b"{}")
    verdict = await check(
        connection, "run", measured, poisoned=["run-poison-1"], half_registered=["host1 serves alpha"]
    )
    assert not verdict.whole
    assert verdict.lost == ["run-1"]
    assert verdict.doubled == ["run-2"]
    assert verdict.missing == ["run-3"]
    assert verdict.different == ["run-4"]
    assert verdict.left_over == [left]
    assert verdict.not_in_dead == ["run-poison-1"]
    assert verdict.half_registered == ["host1 serves alpha"]


def lease(service: str, pid: int, *models: str, state: NodeState = "ready") -> NodeLease:
    return NodeLease(
        service=service, instance=f"{service}-{pid}", host="one", pid=pid, version="1", state=state,
        started_at_s=0.0, seen_at_s=0.0,
        models=tuple(ServedModel(name=name, backend="instant", slots=1) for name in models),
    )  # fmt: skip


def test_a_mesh_that_knows_what_runs_and_nothing_else_has_no_half_of_a_host() -> None:
    running = [Running("host1", "router", 1), Running("host1", "agent", 2), Running("host1", "agent", 3)]
    known = [lease("router", 1), lease("agent", 2, "alpha"), lease("agent", 3, "beta")]
    assert differences(running, known) == []


def test_whoever_is_there_by_half_is_named() -> None:
    """After a partition: gone and still there, there and not known, known twice, without a model."""
    running = [
        *(Running("host1", "router", 1), Running("host1", "agent", 2), Running("host2", "aggregator", 4)),
        *(Running("host2", "router", 5), Running("host2", "metrics", 7)),
    ]
    twice = lease("router", 5).model_copy(update={"instance": "router-of-before"})
    known = [lease("agent", 2, "alpha"), lease("aggregator", 4, state="draining"), lease("router", 5), twice]
    assert differences(running, [*known, lease("agent", 6, "alpha", "beta"), lease("router", 7)]) == [
        "router of host1, process 1, runs and is not there",
        "aggregator of host2, process 4, is draining",
        "router of host2, process 5, is there 2 times",
        "metrics of host2, process 7, runs and is not there",
        "agent agent-6, process 6, is there and does not run",
        "router router-7, process 7, is there and does not run",
        "host1 serves alpha",
    ]


def test_slow_flaps_last_as_long_as_the_option_says() -> None:
    (fault,) = plan_faults(["flap-slowly"], 1, 900.0, 1, end=False, flap_for_s=600.0)
    assert (fault.verb, fault.pause_s) == ("sway", 600.0)


@pytest.mark.soak
async def test_a_cluster_whose_leader_dies_under_load_loses_nothing(
    spawn_service: SpawnService, tmp_path: Path, fault_seed: int
) -> None:
    async with LocalCluster(tmp_path / "cluster") as cluster:
        client = await connect(cluster.url)
        await provision(client, MODELS)
        agent = {"name": "a", "backend": "instant", "models": [{"name": name, "slots": 8} for name in MODELS]}
        services = [
            spawn_service("router", url=cluster.url),
            spawn_service("aggregator", url=cluster.url),
            spawn_service("agent", url=cluster.url, agent=agent),
        ]
        for service in services:
            await service.wait_ready(client)
        messages = MessageStrikes(cluster.url, "run")

        async def kill(_chaos: Chaos, _fault: Fault) -> str:
            cluster.leader(await client.jetstream().stream_info(subjects.RESULTS_STREAM)).kill()
            return "killed the broker that leads the results"

        faults = [
            Fault("poison", "commands", 0.5),
            Fault("elect", "broker", 1.0),
            Fault("kill", "broker", 1.5),
        ]
        session = Session(cluster.url, tmp_path, (), quiet=True, verbs={**messages.verbs, "kill": kill})
        ask = AskOptions(models=MODELS, stream=False)
        mix = {"single": 0.8, "ensemble": 0.2}
        plan = LoadPlan("run", ask, mix, rate=Rate(40.0), requests=120, seed=fault_seed)
        outcome = await session.run(plan, faults)
        verdict = await check(client, "run", outcome.measured, messages.poisoned)
        await client.close()
        assert verdict.whole, verdict
        # While there is no leader a request may be refused, and by no other word than this.
        assert set(verdict.refused) <= {"broker_unavailable"}, verdict
        assert verdict.answered + sum(verdict.refused.values()) == 120, verdict
        assert len(outcome.marks) == 3


def test_the_seed_decides_the_faults() -> None:
    one, same, other = (plan_faults(list(KINDS), 2, 100.0, seed, end=True) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert len(one) == 2 * len(KINDS) + 1
    assert all(0 <= fault.at_s < 100 for fault in one)


def test_an_unknown_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kinds", "meteor"]) == 2
    assert "--kinds meteor: there are kill-agent" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.alone
def test_three_hosts_lose_nothing_whatever_befalls_them(
    capsys: pytest.CaptureFixture[str], fault_seed: int
) -> None:
    if not allowed():
        pytest.skip(NEEDED)
    code = main(["--requests", "1200", "--rate", "20", "--end", "--json", "--seed", str(fault_seed)])
    figures = json.loads(capsys.readouterr().out)
    assert code == 0, json.dumps(figures)
    assert figures["sent"] == 1200


@pytest.mark.soak
@pytest.mark.alone
def test_a_minute_under_steady_load_leaves_the_memory_flat(capsys: pytest.CaptureFixture[str]) -> None:
    code = soak_main(["--duration", "60", "--measure", "5", "--share", "0.2", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["flat"], json.dumps(figures)
    assert (figures["lost"], figures["doubled"]) == (0, 0), json.dumps(figures)
    # A machine whose disk becomes slower after the measurement is not the fault of the mesh: requests may be
    # refused then, and each of those that are not is answered.
    assert set(figures["errors"]) <= {"broker_unavailable", "overloaded"}, json.dumps(figures)
    assert figures["answered"] + sum(figures["errors"].values()) == figures["requests"], json.dumps(figures)
    assert code == (0 if figures["whole"] else 1)
