"""Jobs of a store, and a broker that is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from schemas.errors import BrokerUnavailable
from schemas.nodes.model_store import ManageStore
from services.chassis.identity import Identity
from services.modelstore.jobs.job import Job
from services.modelstore.jobs.queue import JobQueue

DEADLINE_S = 180.0


async def ended(tmp_path: Path, failures: int) -> tuple[Job, int]:
    """A job whose broker is away so many times, and how often it was worked on."""
    tries = 0

    async def work(job: Job) -> None:
        nonlocal tries
        tries += 1
        job.expect(10)
        job.advance(10)
        if tries <= failures:
            raise BrokerUnavailable("the broker is away")

    jobs = JobQueue(tmp_path / "jobs", Identity.of("modelstore", "here"), work)
    jobs.start()
    job = await jobs.add(ManageStore(action="pull", name="m"))
    async with asyncio.timeout(DEADLINE_S):
        while jobs.busy:  # noqa: ASYNC110  (nobody signals it)
            await asyncio.sleep(0.001)
    return job, tries


async def test_a_job_waits_for_a_broker_that_is_away_and_counts_its_bytes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.modelstore.jobs.queue.BROKER_PAUSE_S", 0.0)
    job, tries = await ended(tmp_path, failures=2)
    told = job.as_told()
    assert (told.state, told.problem, tries) == ("done", None, 3)
    assert (told.done_bytes, told.total_bytes) == (10, 10)


async def test_a_broker_that_stays_away_ends_a_job_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.modelstore.jobs.queue.BROKER_PATIENCE_S", 0.0)
    job, tries = await ended(tmp_path, failures=2)
    assert (job.state, tries) == ("failed", 1)
    assert job.problem is not None and job.problem.code == "broker_unavailable"
