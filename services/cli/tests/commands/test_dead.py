"""`choir dead` against a live mesh: what it could not do is listed, asked again, and dropped."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from infra.host.children.processes import POLL_S
from infra.testing.choir_up import connect_inside
from schemas import subjects
from schemas.commands import ChatMessage, Generate
from schemas.requests.sampling import Sampling
from services.chassis.nats.streams import Storage
from services.cli.tests.conftest import Cli

DEADLINE_S = 180.0
QUESTION = "Which city?"


async def _bury(url: str, model: str) -> int:
    now_s = time.time()
    command = Generate(
        request_id="unlucky",
        agent=model,
        model=model,
        messages=(ChatMessage(role="user", content=QUESTION),),
        sampling=Sampling(),
        fingerprint="f",
        accepted_at_s=now_s - 1000,
        deadline_at_s=now_s - 900,
    )
    client = await connect_inside(url)
    try:
        storage = Storage(client)
        why = "it \x1b[31mdied\nthree times"
        await storage.dead_letter("agent", command.request_id, command.to_bytes(), why)
        return await storage.last_sequence(subjects.DEAD_STREAM)
    finally:
        await client.close()


async def _poison(url: str) -> None:
    client = await connect_inside(url)
    try:
        await client.jetstream().publish(
            subjects.generate("interactive", "choir-one", "poison"), b"\x00 no command"
        )
    finally:
        await client.close()


@pytest.fixture
def dead(cli: Cli) -> Iterator[Cli]:
    """A command line whose mesh has no letters left afterwards."""
    yield cli
    cli("dead", "drop", "--all")


def letters(cli: Cli) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli("dead", "list", "--json").out).get("letters", [])
    return found


def test_what_an_agent_could_not_read_is_listed_shown_and_dropped(dead: Cli, live_mesh: str) -> None:
    asyncio.run(_poison(live_mesh))
    end_s = time.monotonic() + DEADLINE_S
    while not letters(dead):
        assert time.monotonic() < end_s
        time.sleep(POLL_S)
    (letter,) = letters(dead)
    number = str(letter["sequence"])
    listed = dead("dead", "list").out
    assert "poison" in listed and "unreadable" in listed and "agent" in listed
    assert "no command" in dead("dead", "show", number).out
    refused = dead("dead", "retry", number)
    assert refused.code == 1 and f"choir dead drop {number}" in refused.err
    assert dead("dead", "drop", number).out == f"{number}: dropped\n"
    assert "there are no dead letters" in dead("dead", "list").out


def test_a_letter_is_asked_again_and_its_answer_fetched(dead: Cli, live_mesh: str) -> None:
    number = asyncio.run(_bury(live_mesh, "choir-one"))
    shown = dead("dead", "show", str(number)).out
    assert QUESTION in shown and "three times" in shown and "\x1b" not in shown
    outcome = dead("dead", "retry", str(number))
    assert (outcome.code, outcome.err) == (0, "")
    new = f"unlucky-retry-{number}"
    assert outcome.out == f"{number}: asked again as {new}; choir fetch {new}\n"
    assert "Paris" in dead("fetch", new).out
    assert letters(dead) == []


def test_of_several_those_that_cannot_be_asked_again_are_named_and_stay(dead: Cli, live_mesh: str) -> None:
    good = asyncio.run(_bury(live_mesh, "choir-one"))
    gone = asyncio.run(_bury(live_mesh, "gone"))
    outcome = dead("dead", "retry", "--all", "--json")
    assert outcome.code == 1
    said = {letter["sequence"]: letter for letter in json.loads(outcome.out)["letters"]}
    assert said[good]["retried_as"] == f"unlucky-retry-{good}"
    assert said[gone]["error"]["code"] == "unknown_model"
    assert [letter["sequence"] for letter in letters(dead)] == [gone]


def test_neither_all_nor_none_is_wrong_usage(dead: Cli) -> None:
    for arguments in ((), ("3", "--all")):
        outcome = dead("dead", "retry", *arguments)
        assert outcome.code == 2
        assert "--all" in outcome.err
