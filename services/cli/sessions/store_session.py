"""A job of a store, followed until it ends: how much is there, how fast it comes, how long it takes still."""

from __future__ import annotations

import asyncio

from rich.live import Live

from schemas.errors import MeshUnreachable, error_from_body
from schemas.nodes.model_store import ManageStore, StoreJob
from services.cli.views.tables.store_view import progress_line
from services.cli.views.terminal import console
from services.client.client import Choir

LOOK_S = 0.3
PATIENCE_S = 120.0
"""A store that is being started anew takes up what it had begun."""


async def followed(request: ManageStore, detach: bool, *, quiet: bool) -> StoreJob:
    """The job at its end, or as it begins if nobody is to wait. Raises the error that it ends with."""
    out = console()
    async with Choir() as mesh:
        (job,) = (await mesh.store(request)).jobs
        if detach:
            return job
        with Live(console=out, refresh_per_second=4, transient=True, auto_refresh=not quiet) as live:
            silent_s = 0.0
            while job.state not in ("done", "failed"):
                await asyncio.sleep(LOOK_S)
                told = (await mesh.store(ManageStore(action="jobs", job=job.id))).jobs
                silent_s = 0.0 if told else silent_s + LOOK_S
                if silent_s > PATIENCE_S:
                    raise MeshUnreachable(f"the store {job.instance} has not answered for {PATIENCE_S:g} s")
                job = told[0] if told else job
                if not quiet:
                    live.update(progress_line(job, out.width))
    if job.problem is not None:
        raise error_from_body(job.problem)
    return job
