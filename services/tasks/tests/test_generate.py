"""One task after another: what becomes of those that nobody waits for."""

from __future__ import annotations

import asyncio
import time

from nats.aio.client import Client

from infra.testing.mesh import eventually, generate, open_mesh
from schemas import subjects
from schemas.commands import Embed
from schemas.errors import Cancelled
from schemas.replies import Result
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.chassis.work.delivery import Delivery
from services.tasks.generate import BackendWorker, Generated, OnPiece, Prompt


class Endless:
    """Generates until it is told not to."""

    def __init__(self) -> None:
        self.running = 0

    async def embed(self, embed: Embed) -> Generated:
        raise AssertionError

    async def generate(
        self, prompt: Prompt, sampling: Sampling, on_piece: OnPiece | None, origin: Origin = NOBODY
    ) -> Generated:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        raise AssertionError


async def test_a_cancellation_that_was_missed_is_found_in_the_results(connection: Client) -> None:
    mesh, model = open_mesh(connection), Endless()
    worker = BackendWorker(mesh, model)
    message = await connection.request("$JS.API.INFO", b"")
    tasks = [
        asyncio.create_task(worker.handle(generate(name), Delivery(message, 1, 1, fresh=True)))
        for name in ("cancelled", "wanted")
    ]
    await eventually(lambda: model.running == 2)
    result = Result.failed(generate("cancelled"), Cancelled("by its client"), time.time())
    await mesh.storage.store_once(subjects.result("cancelled"), result.to_bytes())
    await worker.look_for_cancelled()
    await eventually(lambda: model.running == 1)
    await tasks[0]
    assert not tasks[1].done()
    worker.cancel("wanted")
    await tasks[1]
