"""The generator against servers of which theory, or arithmetic, says what has to be measured."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from loadtest.generate.arrivals import Rate
from loadtest.generate.generator import Generator
from loadtest.generate.plan import LoadPlan
from loadtest.generate.request_record import TIMED_OUT
from loadtest.generate.workloads import AskOptions
from loadtest.outcome.measurements import Measurements, read_records, write_records
from loadtest.outcome.metrics import e2e, e2e_intended, lag
from loadtest.targets.target import Target
from loadtest.tests.servers import DeafServer, SingleServer, StallingServer
from loadtest.tests.virtual_time import simulated

ASK = AskOptions(models=("m",), timeout_s=5.0)


async def measured(target: Target, plan: LoadPlan, folder: Path) -> Measurements:
    """What the generator measures of a target."""
    generator = Generator(target, plan.ask.timeout_s, plan.max_in_flight)
    await generator.open()
    generator.start()
    if plan.concurrency is None:
        await generator.run_open(plan.share(0))
    else:
        await generator.run_closed(plan.share(0), plan.concurrency, plan.duration_s)
    await generator.finish()
    write_records(folder / "records.parquet", generator.records, 0, 0.0)
    return read_records([folder / "records.parquet"])


def interval_of_mean(values: np.ndarray, batches: int = 20) -> tuple[float, float]:
    """The 99.9 % interval of a mean of correlated values, by batch means."""
    means = [batch.mean() for batch in np.array_split(values, batches)]
    half = stats.t.ppf(0.9995, batches - 1) * np.std(means, ddof=1) / np.sqrt(batches)
    return float(np.mean(means) - half), float(np.mean(means) + half)


@pytest.mark.parametrize("law", ["deterministic", "exponential"])
def test_waiting_times_are_those_of_queueing_theory(
    law: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M/D/1 waits rate s^2 / (2 (1 - rate s)) in the mean, M/M/1 twice that (Pollaczek and Khinchine).

    In virtual time: milliseconds on a host that others use are those of its scheduler.
    """
    mean_s, rate = 0.002, 300.0
    draws = np.random.default_rng(7).exponential(mean_s, 20_000)
    times = itertools.repeat(mean_s) if law == "deterministic" else iter(draws)
    server = SingleServer(lambda: float(next(times)))
    plan = LoadPlan("run", ASK, rate=Rate(rate), duration_s=30.0, seed=11)

    async def run() -> Measurements:
        return await measured(server, plan, tmp_path)

    found = simulated(run(), monkeypatch)

    used = rate * mean_s
    theory_s = rate * mean_s**2 / (2 * (1 - used)) * (1 if law == "deterministic" else 2)
    # The service times were drawn for the requests that came: their own mean is taken off.
    service_s = mean_s if law == "deterministic" else float(draws[: len(found)].mean())
    low, high = interval_of_mean(e2e(found) / 1000 - service_s)
    assert low <= theory_s <= high, (low, theory_s, high)


def test_a_stall_shows_from_the_intended_start_and_hides_from_the_actual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinated omission: with one connection the client waits for the server that it measures."""
    plan = LoadPlan(
        "run", ASK, arrivals="constant", rate=Rate(100.0), duration_s=3.0, max_in_flight=1, seed=1
    )
    server = StallingServer(stall_s=1.0, service_s=0.0005)
    found = simulated(measured(server, plan, tmp_path), monkeypatch)
    assert len(found) == 300
    actual, intended = e2e(found), e2e_intended(found)
    assert np.percentile(actual, 99) < 100, "one request of 300 has waited, as far as its own clock says"
    assert actual.max() > 900
    assert np.percentile(intended, 90) > 600, "everybody who came in that second has waited"
    assert lag(found).max() > 900


def test_open_loop_does_not_wait_for_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = LoadPlan("run", ASK, arrivals="constant", rate=Rate(200.0), duration_s=1.0)
    server = StallingServer(stall_s=0.2, service_s=0.0)
    found = simulated(measured(server, plan, tmp_path), monkeypatch)
    assert len(found) == 200
    assert np.percentile(lag(found), 50) < 50
    assert e2e(found).max() > 900


def test_a_closed_loop_keeps_as_many_requests_under_way_as_it_has_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = LoadPlan("run", ASK, concurrency=4, duration_s=1.0)
    found = simulated(measured(SingleServer(lambda: 0.005), plan, tmp_path), monkeypatch)
    assert found.good.all()
    # Little: 4 users in a server that does one in 5 ms see 20 ms each.
    assert 18 < np.median(e2e(found)) < 40
    under_way = [int(((found.sent_s < at) & (found.done_s > at)).sum()) for at in np.linspace(0.1, 0.9, 50)]
    assert max(under_way) <= 4
    assert np.mean(under_way) > 3.5


async def test_who_never_answers_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.generate.generator.GRACE_S", 0.1)
    ask = AskOptions(models=("m",), timeout_s=0.2)
    plan = LoadPlan("run", ask, arrivals="constant", rate=Rate(100.0), requests=10, duration_s=1.0)
    async with asyncio.timeout(180):
        found = await measured(DeafServer(), plan, tmp_path)
    assert set(found.error) == {TIMED_OUT}


def starts(plan: LoadPlan, process: int = 0) -> Iterator[float]:
    return (request.start_s for request in plan.share(process))


def test_several_processes_send_together_what_one_would_send() -> None:
    one = LoadPlan("run", ASK, rate=Rate(50.0), duration_s=2.0, seed=5, mix={"single": 0.5, "ensemble": 0.5})
    three = LoadPlan(
        "run", ASK, rate=Rate(50.0), duration_s=2.0, seed=5, mix={"single": 0.5, "ensemble": 0.5}, processes=3
    )
    together = sorted((request for p in range(3) for request in three.share(p)), key=lambda r: r.number)
    assert together == list(one.share(0))
    assert [LoadPlan("r", ASK, concurrency=8, processes=3).users(p) for p in range(3)] == [3, 3, 2]


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    plans = [LoadPlan("run", ASK, duration_s=5.0, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (list(plan.share(0)) for plan in plans)
    assert first == again
    assert first != other
