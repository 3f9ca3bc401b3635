"""What a router knows after its connection was lost: what others have removed meanwhile is gone."""

from __future__ import annotations

from collections.abc import Iterable

from nats.aio.client import Client

from infra.testing.broker.cable import mesh_on_a_cable
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.message import Message
from schemas.nodes.workers import ManageWorkers, Worker, WorkersReply
from services.chassis.nats.endpoints import Caller
from services.chassis.registry.directory import Directory
from services.router.endpoints.workers import Workers


class Listener(Caller):
    """Keeps what it is sent."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, "")
        self.replies: list[Message] = []

    async def send_what_fits(self, versions: Iterable[Message]) -> None:
        self.replies.append(next(iter(versions)))


async def listed(workers: Workers, client: Client) -> list[str]:
    """The workers that `choir worker list` shows."""
    listener = Listener(client)
    await workers.manage(ManageWorkers(action="list"), listener)
    (reply,) = listener.replies
    assert isinstance(reply, WorkersReply)
    return [status.worker.id for status in reply.workers]


async def test_a_worker_that_was_removed_while_a_router_was_cut_off_is_listed_no_more(
    connection: Client, mesh_url: str
) -> None:
    bucket = await connection.jetstream().key_value(subjects.WORKERS_BUCKET)
    for name in ("stays", "goes"):
        entry = Worker(id=name, type="ollama", host="127.0.0.1", port=11434, model="alpha")
        await bucket.put(subjects.worker_key(name), entry.to_bytes())
    async with mesh_on_a_cable(mesh_url, "router") as (mesh, way):
        workers = Workers(mesh.client, Directory(mesh.client), mesh.events)
        mesh.connection.on_reconnect(workers.resume)
        await workers.start()
        assert await listed(workers, mesh.client) == ["goes", "stays"]
        await way.cut_from(mesh)
        await bucket.delete(subjects.worker_key("goes"))
        await way.mend()

        async def one_is_left() -> bool:
            return await listed(workers, mesh.client) == ["stays"]

        await eventually(one_is_left)
