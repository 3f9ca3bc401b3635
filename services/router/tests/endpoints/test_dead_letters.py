"""`choir.dead_letters`: what could not be done is listed, shown, asked again, or dropped."""

from __future__ import annotations

import time
from typing import Any

import nats.errors
import pytest
from nats.js import JetStreamContext

from schemas import subjects
from schemas.commands import ChatMessage, Command, Gather, Generate, Summarize
from schemas.requests.dead_letters import DeadLetter, DeadLettersReply
from schemas.requests.sampling import Sampling
from services.router.endpoints.dead_letters import retried_id
from services.router.tests.front import Front

LONG_AGO_S = 1_000_000.0
COMMON: dict[str, Any] = {
    "messages": (ChatMessage(role="user", content="Which giraffe?"),),
    "sampling": Sampling(max_tokens=7),
    "fingerprint": "f",
    "accepted_at_s": LONG_AGO_S,
    "deadline_at_s": LONG_AGO_S + 30,
}
SINGLE = Generate(request_id="one", agent="alpha", model="alpha", **COMMON)
STEP = Generate(request_id="part", agent="beta", model="beta", routing_slip=("aggregator",), **COMMON)
ENSEMBLE = Gather(request_id="many", members=("alpha", "beta"), strategies=("majority",), quorum=2, **COMMON)
CHAIN = Summarize(request_id="chain", peers=("alpha", "gamma"), **COMMON)


async def dead_letter(
    front: Front, command: Command | bytes, request_id: str = "junk", why: str = "it died"
) -> int:
    """Puts a letter where services put them; its number."""
    data = command if isinstance(command, bytes) else command.to_bytes()
    name = request_id if isinstance(command, bytes) else command.request_id
    await front.mesh.storage.dead_letter("agent", name, data, why)
    return await front.mesh.storage.last_sequence(subjects.DEAD_STREAM)


async def manage(front: Front, **fields: Any) -> DeadLettersReply:
    reply = await front.request(subjects.DEAD_LETTERS, **fields)
    return DeadLettersReply.model_validate_json(reply.data)


async def letters(front: Front) -> tuple[DeadLetter, ...]:
    return (await manage(front)).letters


async def test_letters_are_listed_with_who_gave_them_up_and_why(front: Front) -> None:
    assert await letters(front) == ()
    before_s = time.time() - 60
    numbers = [await dead_letter(front, command) for command in (SINGLE, STEP, ENSEMBLE, CHAIN)]
    numbers.append(await dead_letter(front, b"\x00 nothing", why="it could not be read"))
    found = await letters(front)
    assert [letter.sequence for letter in found] == numbers
    assert [(letter.letter, letter.models, letter.part_of) for letter in found] == [
        ("generate", ("alpha",), None),
        ("generate", ("beta",), "aggregator"),
        ("gather", ("alpha", "beta"), None),
        ("summarize", ("alpha", "gamma"), None),
        ("unreadable", (), None),
    ]
    assert (found[0].service, found[0].request_id, found[0].reason) == ("agent", "one", "it died")
    assert found[4].reason == "it could not be read"
    assert before_s < found[0].died_at_s < time.time() + 60
    assert all(letter.content is None for letter in found)


async def test_what_the_broker_says_of_deliveries_is_no_letter(front: Front) -> None:
    advisory = subjects.MAX_DELIVERIES_ADVISORIES.replace(">", "OTHER.consumer")
    await front.client.jetstream().publish(advisory, b"{}")
    await dead_letter(front, SINGLE)
    assert [letter.request_id for letter in await letters(front)] == ["one"]


async def test_the_letters_of_one_tenant_are_found_among_those_of_others(front: Front) -> None:
    for request_id in ("one", "alice=one", "bob=one", "alice=two"):
        await dead_letter(front, SINGLE.model_copy(update={"request_id": request_id}))
    first = await manage(front, tenant="alice", limit=1)
    assert [letter.request_id for letter in first.letters] == ["alice=one"]
    rest = await manage(front, tenant="alice", after_sequence=first.more_after)
    assert ([letter.request_id for letter in rest.letters], rest.more_after) == (["alice=two"], None)
    assert [one.request_id for one in (await manage(front, tenant="local")).letters] == ["one"]


async def test_a_long_list_is_read_page_by_page(front: Front) -> None:
    numbers = [await dead_letter(front, SINGLE) for _ in range(5)]
    first = await manage(front, limit=3)
    assert ([letter.sequence for letter in first.letters], first.more_after) == (numbers[:3], numbers[2])
    rest = await manage(front, limit=3, after_sequence=first.more_after)
    assert ([letter.sequence for letter in rest.letters], rest.more_after) == (numbers[3:], None)


async def test_one_letter_is_shown_with_what_was_asked(front: Front) -> None:
    number = await dead_letter(front, SINGLE)
    (letter,) = (await manage(front, action="show", sequence=number)).letters
    assert "Which giraffe?" in (letter.content or "")
    junk = await dead_letter(front, b"\x00\xff nothing")
    (letter,) = (await manage(front, action="show", sequence=junk)).letters
    assert letter.content == "\x00\\xff nothing"
    assert len(await letters(front)) == 2


@pytest.mark.parametrize("dead", [SINGLE, ENSEMBLE, CHAIN], ids=lambda command: type(command).__name__)
async def test_a_letter_that_is_retried_is_a_new_request_for_the_same(front: Front, dead: Command) -> None:
    number = await dead_letter(front, dead)
    reply = await manage(front, action="retry", sequence=number)
    assert reply.retried_as == f"{dead.request_id}-retry-{number}"
    again = await front.command(reply.retried_as)
    assert again.deadline_at_s - again.accepted_at_s == pytest.approx(30)
    assert again.accepted_at_s > time.time() - 600
    new = {"request_id", "accepted_at_s", "deadline_at_s", "fingerprint"}
    assert again.model_dump(exclude=new) == dead.model_dump(exclude=new)
    assert await letters(front) == ()


async def test_one_step_of_an_ensemble_is_asked_of_its_model_alone(front: Front) -> None:
    number = await dead_letter(front, STEP)
    reply = await manage(front, action="retry", sequence=number)
    again = await front.command(reply.retried_as or "")
    assert isinstance(again, Generate)
    assert (again.model, again.routing_slip, again.messages) == ("beta", (), STEP.messages)


async def test_the_old_request_keeps_its_one_result_and_the_new_one_has_its_own(front: Front) -> None:
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha", request_id="one")
    await front.finish("one", text="an error, let us say")
    number = await dead_letter(front, SINGLE)
    new = (await manage(front, action="retry", sequence=number)).retried_as or ""
    await front.finish(new, text="at last")
    texts = []
    for request_id in ("one", new):
        stored = await front.mesh.storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        assert stored is not None
        texts.append(stored.data)
    assert b"an error" in texts[0] and b"at last" in texts[1]


async def test_a_retry_that_was_cut_off_is_not_done_twice(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await dead_letter(front, SINGLE)

    async def cut_off(*_: object, **__: object) -> bool:
        raise nats.errors.TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(JetStreamContext, "delete_msg", cut_off)
        assert (await front.refused(subjects.DEAD_LETTERS, action="retry", sequence=number)).code == (
            "broker_unavailable"
        )
    assert len(await letters(front)) == 1
    commands = await front.stored()
    assert (await manage(front, action="retry", sequence=number)).retried_as == f"one-retry-{number}"
    assert await front.stored() == commands
    assert await letters(front) == ()


async def test_what_cannot_be_asked_again_stays_and_says_why(front: Front) -> None:
    junk = await dead_letter(front, b"\x00 nothing")
    gone = await dead_letter(front, SINGLE.model_copy(update={"model": "gone", "agent": "gone"}))
    unreadable = await front.refused(subjects.DEAD_LETTERS, action="retry", sequence=junk)
    assert (unreadable.code, unreadable.field) == ("invalid_request", "sequence")
    assert f"choir dead drop {junk}" in unreadable.message
    assert (await front.refused(subjects.DEAD_LETTERS, action="retry", sequence=gone)).code == "unknown_model"
    assert [letter.sequence for letter in await letters(front)] == [junk, gone]


async def test_a_letter_that_is_dropped_is_gone(front: Front) -> None:
    first, second = [await dead_letter(front, SINGLE) for _ in range(2)]
    (dropped,) = (await manage(front, action="drop", sequence=first)).letters
    assert dropped.sequence == first
    assert [letter.sequence for letter in await letters(front)] == [second]
    for action in ("show", "retry", "drop"):
        error = await front.refused(subjects.DEAD_LETTERS, action=action, sequence=first)
        assert (error.code, error.field) == ("invalid_request", "sequence")
        assert str(first) in error.message


@pytest.mark.parametrize(
    "fields", [{"action": "show"}, {"action": "list", "sequence": 3}, {"action": "drop"}, {"limit": 0}]
)
async def test_a_request_that_makes_no_sense_names_its_field(front: Front, fields: dict[str, Any]) -> None:
    error = await front.refused(subjects.DEAD_LETTERS, **fields)
    assert (error.code, error.field) == ("invalid_request", "limit" if "limit" in fields else "sequence")


def test_the_id_of_a_retry_is_an_id_however_long_the_old_one_was() -> None:
    assert retried_id("a" * 64, 123) == "a" * 54 + "-retry-123"
