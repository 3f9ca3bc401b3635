"""Checks that external workers, registered or named in choir.toml, answer from here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from infra.settings import HostSettings
from schemas.errors import ChoirError
from schemas.nodes.workers import ManageWorkers, Worker, WorkerStatus
from services.agent.backends import backend_opener
from services.agent.settings import REMOTE, AgentSection
from services.cli.setup.validation.finding import Finding, ok, warning, wrong
from services.cli.workers.trial import Trial, try_worker
from services.client.client import Choir
from services.client.finding.local_mesh import running_mesh


def check_workers(settings: HostSettings) -> Iterator[Finding]:
    """Models behind servers in choir.toml, then what is registered in the mesh that runs."""
    for agent in settings.agents:
        if agent.backend in REMOTE:
            yield from _configured(agent)
    mesh = running_mesh()
    if mesh is not None or not settings.broker.embedded:
        yield from _registered(settings.mesh.url if mesh is None else mesh.url)


def _configured(agent: AgentSection) -> Iterator[Finding]:
    for model in agent.models:
        what = f"server of {model.name}"

        async def look(model: object = model) -> None:
            backend = await backend_opener(agent.backend)(model, None)  # type: ignore[arg-type]
            await backend.close()

        try:
            asyncio.run(look())
        except ChoirError as error:
            yield wrong(what, error.message, "start it, or correct server in section [[agents]]")
        else:
            yield ok(what, f"{model.server.url if model.server else ''} has it")


def _registered(url: str) -> Iterator[Finding]:
    try:
        statuses, trials = asyncio.run(_look(url))
    except ChoirError:
        return  # that the mesh does not answer is said where the broker is checked
    for status, trial in zip(statuses, trials, strict=True):
        yield _finding(status, trial)


async def _look(url: str) -> tuple[tuple[WorkerStatus, ...], list[Trial]]:
    async with Choir(url) as mesh:
        statuses = await mesh.workers(ManageWorkers())
    workers: list[Worker] = [status.worker for status in statuses]
    return statuses, list(await asyncio.gather(*(try_worker(w, generate=False) for w in workers)))


def _finding(status: WorkerStatus, trial: Trial) -> Finding:
    worker = status.worker
    what, test_it = f"worker {worker.id}", f"`choir worker test {worker.id}` says more"
    if trial.problem is not None:
        return wrong(what, trial.problem.message, f"start it, or `choir worker remove {worker.id}`")
    if worker.cordoned:
        return warning(what, "it answers, and is cordoned", f"`choir worker uncordon {worker.id}`")
    if status.problem is not None:
        return warning(what, f"it answers here, but: {status.problem.message}", test_it)
    if status.held_by is None:
        return warning(what, "it answers, but no agent uses it", "start an agent that may: see only_on")
    return ok(what, f"{worker.model} at {worker.url}, used by {status.held_by}")
