"""The pure parts of a batch: prompts, passages, plan, pace, and how much is under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from schemas.errors import InvalidRequest
from services.cli.batch.documents.files import Document
from services.cli.batch.documents.map_reduce import joining
from services.cli.batch.plan import Plan
from services.cli.batch.prompts import PRESETS, Prompt, chosen_prompts
from services.client.bulk.bounded import Gate, spread, together

NOTES = Document(Path("notes.md"), "notes.md")


def plan(**changes: object) -> Plan:
    fields: dict[str, object] = {
        "documents": (NOTES,),
        "prompts": PRESETS["research"],
        "models": (),
        "outputs": (Path("results.json"),),
        "options": {"max_tokens": 64},
    }
    return Plan(**(fields | changes))  # type: ignore[arg-type]


def test_the_research_preset_asks_the_five_questions_of_a_review() -> None:
    names = [prompt.name for prompt in chosen_prompts(["research"], [])]
    assert names == ["question", "methodology", "findings", "limitations", "future_work"]


@pytest.mark.parametrize("prompt", [prompt for prompts in PRESETS.values() for prompt in prompts])
def test_every_preset_shows_the_document_and_its_name(prompt: Prompt) -> None:
    text = prompt.about("a.txt", "Braces {like} these stay.")
    assert "a.txt" in text
    assert text.endswith("Braces {like} these stay.")


def test_presets_and_own_prompts_go_together_and_a_preset_named_twice_is_asked_once() -> None:
    prompts = chosen_prompts(["summary", "summary"], ["Who wrote {filename}?", "Title? {content}"])
    assert [prompt.name for prompt in prompts] == ["summary", "prompt-1", "prompt-2"]
    assert prompts[1].about("a.txt", "By Ada.") == "Who wrote a.txt?\n\nBy Ada."
    assert prompts[2].about("a.txt", "By Ada.") == "Title? By Ada."


@pytest.mark.parametrize(
    ("presets", "own", "field", "said"),
    [
        (["thorough"], [], "preset", "research, summary, critical"),
        ([], [], "prompt", "--preset or --prompt"),
        ([], ["  "], "prompt", "empty"),
        ([], ["{author}: {content}"], "prompt", "{author}"),
        ([], ["{content"], "prompt", "{{"),
        ([], ["{content!r}"], "prompt", "a format"),
        ([], ["{}"], "prompt", "{filename}"),
        ([], ['{"json": true} {content}'], "prompt", "{{"),
    ],
)
def test_a_prompt_that_cannot_be_asked_is_refused(
    presets: list[str], own: list[str], field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chosen_prompts(presets, own)
    assert refused.value.field == field
    assert said in refused.value.message


def test_answers_about_parts_are_joined_by_a_prompt_that_quotes_the_instruction() -> None:
    own = chosen_prompts([], ["List {{names}} in {filename}: {content}"])[0]
    joined = joining(own, "a{b}.txt").about("ignored", "Ada; Bob {x}")
    assert "List {names} in a{b}.txt: [the document]" in joined
    assert joined.endswith("Ada; Bob {x}")
    assert joining(joining(own, "a"), "a") == joining(own, "a")


def test_a_batch_is_the_same_while_what_is_asked_is_the_same() -> None:
    assert plan().settings == plan(documents=(), outputs=(Path("other.csv"),), max_concurrent=2).settings
    assert plan().settings == plan(options={"max_tokens": 64, "timeout_s": 9.0}).settings
    others = [plan(models=("a",)), plan(options={"max_tokens": 65}), plan(prompts=PRESETS["summary"])]
    assert len({plan().settings, *(other.settings for other in others)}) == 4


async def settle() -> None:
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_jobs_are_taken_only_when_there_is_room_for_them() -> None:
    taken: list[int] = []
    gate = asyncio.Semaphore(0)

    def numbers() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    async def work(number: int) -> int:
        await gate.acquire()
        return number

    done = spread(numbers(), work, lambda: 3)
    first = asyncio.ensure_future(anext(done))
    await settle()
    assert taken == [0, 1, 2]
    gate.release()
    assert await first == 0
    for _ in range(9):
        gate.release()
    assert sorted([number async for number in done]) == list(range(1, 10))


async def test_an_error_ends_the_other_jobs() -> None:
    ended: list[int] = []

    async def work(number: int) -> int:
        if number == 2:
            raise InvalidRequest("no")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(number)
        return number

    with pytest.raises(InvalidRequest):
        _ = [number async for number in spread(range(3), work, lambda: 3)]
    assert sorted(ended) == [0, 1]


async def test_work_together_keeps_its_order_and_fails_as_one() -> None:
    async def late(value: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return value

    async def broken() -> str:
        raise InvalidRequest("no")

    assert await together([late("a", 0.01), late("b", 0)]) == ["a", "b"]
    with pytest.raises(InvalidRequest):
        await together([late("a", 60), broken()])


async def test_a_gate_lets_in_as_many_as_there_is_room_for() -> None:
    room, inside, most = 2, 0, 0

    async def visit(work: Awaitable[None]) -> None:
        nonlocal inside, most
        async with gate:
            inside += 1
            most = max(most, inside)
            await work
            inside -= 1

    gate = Gate(lambda: room)
    await together([visit(asyncio.sleep(0.001)) for _ in range(8)])
    assert (most, inside) == (2, 0)
