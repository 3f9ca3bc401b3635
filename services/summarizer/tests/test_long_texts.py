"""Texts that are longer than the summarising model's context: map, reduce, and where that ends."""

from __future__ import annotations

from typing import Any

import pytest
from nats.aio.client import Client

from infra.testing.mesh import open_mesh
from schemas.commands import ChatMessage
from schemas.errors import GenerationFailed
from schemas.replies import Result
from schemas.requests.sampling import Sampling
from services.summarizer.tests.peers import (
    CONTEXT_TOKENS,
    Peer,
    Says,
    chain,
    enqueue_chain,
    present,
    result_of,
    store_answer,
    summarizing,
    words,
)

PROMPT = "Summarize: "
ROOM = CONTEXT_TOKENS - CONTEXT_TOKENS // 4
DOCUMENT = "\n\n".join(
    " ".join(f"word-{paragraph}-{number}" for number in range(30)) + "." for paragraph in range(20)
)


def first_words(count: int) -> Says:
    """A peer that shortens to the first words of what it is given."""
    return lambda prompt: " ".join(prompt.removeprefix(PROMPT).split()[:count])


async def summarised(
    connection: Client, text: str, says: Says, context_tokens: int | None = CONTEXT_TOKENS, **fields: Any
) -> tuple[Result, Peer]:
    """The result of a chain whose first peer writes `text`, and its second peer."""
    settings = {"max_parts": fields.pop("max_parts")} if "max_parts" in fields else {}
    async with (
        present(connection, {"alpha": lambda _prompt: text, "beta": says}, context_tokens) as peers,
        summarizing(connection, **settings) as mesh,
    ):
        await enqueue_chain(mesh, chain("r1", "alpha", "beta", **fields))
        return await result_of(mesh, "r1"), peers["beta"]


async def test_a_long_text_is_summarised_part_by_part_and_no_word_is_lost(connection: Client) -> None:
    result, peer = await summarised(connection, DOCUMENT, first_words(3))
    assert result.error is None
    read = [prompt.removeprefix(PROMPT) for prompt in peer.prompts[:-1]]
    assert sorted(" ".join(read).split()) == sorted(DOCUMENT.split())
    assert all(words(prompt) < ROOM for prompt in peer.prompts)
    assert all(prompt.endswith(".") for prompt in peer.prompts[:-1])  # cut between paragraphs


async def test_the_parts_answers_are_joined_in_the_order_of_the_text(connection: Client) -> None:
    result, peer = await summarised(connection, DOCUMENT, first_words(3))
    (step,) = result.steps[1:]
    assert peer.prompts[-1] == PROMPT + "\n\n".join(answer.text for answer in step.parts)
    starts = [answer.text.split("-")[1] for answer in step.parts]
    assert starts == sorted(starts, key=int) and len(starts) > 5
    assert result.text == " ".join(DOCUMENT.split()[:3])
    assert step.tasks == len(step.parts) + 1 == len(peer.asked)
    tasks = (*step.parts, result.answers[1])
    assert step.generated_tokens == sum(task.generated_tokens for task in tasks)
    assert step.timings.eval_duration_ns == sum(task.timings.eval_duration_ns for task in tasks)


async def test_the_summaries_of_many_parts_are_summarised_again(connection: Client) -> None:
    result, peer = await summarised(connection, DOCUMENT, first_words(20))
    assert result.error is None
    levels = [answer.agent.split("-")[1] for answer in result.steps[1].parts]
    assert levels == sorted(levels) and set(levels) >= {"1", "2"}
    assert all(words(prompt) < ROOM for prompt in peer.prompts)


async def test_a_part_s_answer_leaves_room_for_the_others(connection: Client) -> None:
    _, peer = await summarised(connection, DOCUMENT, first_words(3), sampling=Sampling(max_tokens=5_000))
    assert {task.sampling.max_tokens for task in peer.asked[:-1]} == {CONTEXT_TOKENS // 4}
    assert peer.asked[-1].sampling.max_tokens == 5_000


async def test_where_nobody_knows_the_context_the_text_goes_as_it_is(connection: Client) -> None:
    result, peer = await summarised(connection, DOCUMENT, first_words(3), context_tokens=None)
    assert result.error is None
    assert len(peer.asked) == 1


@pytest.mark.parametrize(
    ("says", "fields", "said"),
    [
        (first_words(3), {"max_parts": 4}, "max_parts"),
        (lambda prompt: prompt, {}, "no shorter"),
        (first_words(3), {"summary_prompt": "Please, " * 70 + "{text}"}, "summary_prompt"),
    ],
)
async def test_a_text_that_is_too_long_even_so_is_a_typed_error(
    connection: Client, says: Says, fields: dict[str, Any], said: str
) -> None:
    result, _ = await summarised(connection, DOCUMENT, says, **fields)
    assert result.error is not None and result.error.code == "context_exceeded"
    assert said in result.error.message
    assert [answer.text for answer in result.answers] == [DOCUMENT]


async def test_a_part_that_fails_ends_the_chain(connection: Client) -> None:
    def fail_on_paragraph_9(prompt: str) -> str | GenerationFailed:
        return GenerationFailed("out of memory") if "word-9-" in prompt else "ok"

    result, _ = await summarised(connection, DOCUMENT, fail_on_paragraph_9)
    assert result.error is not None
    assert (result.error.code, result.error.message) == ("generation_failed", "step 2 (beta): out of memory")


async def test_parts_without_an_answer_leave_nothing_to_summarise(connection: Client) -> None:
    result, _ = await summarised(connection, DOCUMENT, lambda _prompt: "")
    assert result.error is not None and "nothing was written" in result.error.message


async def test_parts_that_are_done_are_not_asked_for_again(connection: Client) -> None:
    """A summarizer has died between map and reduce; another one finds what there is."""
    command = chain("r1", "alpha", "beta")
    says: dict[str, Says] = {"alpha": lambda _prompt: DOCUMENT, "beta": first_words(3)}
    async with present(connection, says) as peers, summarizing(connection) as mesh:
        await enqueue_chain(mesh, command)
        await result_of(mesh, "r1")
        parts = peers["beta"].asked[:-1]
    again = command.model_copy(update={"request_id": "r2"})
    mesh = open_mesh(connection)
    await store_answer(mesh, again.generate(1, command.messages, at_s=0.0), DOCUMENT)
    for part in parts[:-1]:
        await store_answer(mesh, part.model_copy(update={"request_id": "r2"}), "stored before")
    await enqueue_chain(mesh, again)
    async with present(connection, says) as peers, summarizing(connection):
        result = await result_of(mesh, "r2")
    assert [task.agent for task in peers["beta"].asked] == [parts[-1].agent, "beta"]
    assert [answer.text for answer in result.steps[1].parts[:-1]] == ["stored before"] * (len(parts) - 1)
    assert peers["alpha"].asked == []


async def test_the_question_is_the_one_that_was_asked(connection: Client) -> None:
    messages = (ChatMessage(role="user", content="Which word?"),)
    _, peer = await summarised(
        connection, DOCUMENT, lambda _p: "ok", messages=messages, summary_prompt="{question} {text}"
    )
    assert all(prompt.startswith("Which word? ") for prompt in peer.prompts)
