"""What an attempt ended with is noted, and found by whoever ends the command."""

from __future__ import annotations

from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.mesh import enqueue, eventually, generate, in_time, open_mesh, queue_is_empty
from schemas import subjects
from schemas.commands import Generate
from schemas.errors import ChoirError, DeadlineExceeded, Overloaded, WorkerFailed
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.nats.streams import REASON_CHARACTERS
from services.chassis.work.attempts import Past, last_error, note, out_of_time, past
from services.chassis.work.delivery import Delivery, Retry
from services.chassis.work.tests.test_loop import CommandHandler, working

SEQUENCE = 7
LATE = DeadlineExceeded("nobody was free in time")


def delivery(count: int) -> Delivery:
    """The command at SEQUENCE, delivered for the so many-th time."""
    reply = f"$JS.ACK.{subjects.COMMANDS_STREAM}.consumer.{count}.{SEQUENCE}.1.1.0"
    return Delivery.of(Msg(_client=Client(), subject="choir.command.r1", reply=reply), 0)


async def test_a_request_that_runs_out_of_time_after_a_failure_ends_as_that_failure(
    connection: Client,
) -> None:
    mesh = open_mesh(connection)

    async def fail(command: Generate, _delivery: Delivery) -> None:
        longer_s = 1.5 * (command.deadline_at_s - command.accepted_at_s)
        raise Retry(WorkerFailed("worker mac-1: it hung up"), delay_s=longer_s)

    worker = CommandHandler(fail)
    async with working(mesh, worker):

        async def attempt(request_id: str, timeout_s: float) -> ChoirError:
            await enqueue(mesh, generate(request_id, timeout_s=timeout_s))
            await eventually(lambda: queue_is_empty(connection))
            return worker.given_up[request_id]

        error = await in_time(attempt, lambda _error: bool(worker.deliveries), 1.0)
    assert (worker.deliveries, error.code) == ([1], "worker_failed")
    assert error.message == (
        "worker mac-1: it hung up; the time for this request ran out while it was queued"
    )


async def test_the_last_error_counts_whatever_came_after_it(connection: Client) -> None:
    mesh = open_mesh(connection)
    for count, error in ((1, Overloaded("full")), (2, WorkerFailed("x" * 5_000, field="prompt"))):
        await note(mesh.storage, delivery(count), "failed", error)
    await note(mesh.storage, delivery(3), "refused")

    found = await last_error(mesh.storage, SEQUENCE)
    assert isinstance(found, WorkerFailed)
    assert (len(found.message), found.field) == (REASON_CHARACTERS, "prompt")
    assert await last_error(mesh.storage, 70) is None
    assert await out_of_time(mesh.storage, 70, LATE) is LATE
    assert await past(mesh.storage, delivery(5)) == Past(refused=1, silent=1)


async def test_a_note_of_another_version_is_no_reason_to_fail(connection: Client) -> None:
    mesh = open_mesh(connection)
    notes = Bucket(connection, subjects.ATTEMPTS_BUCKET, BYTES)
    for count, said in enumerate((b"failed", b"failed later"), start=1):
        await notes.put(f"{SEQUENCE}.{count}", said)
    assert await out_of_time(mesh.storage, SEQUENCE, LATE) is LATE
