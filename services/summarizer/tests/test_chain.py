"""Chains on a real broker, with peers that say what the test wants."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from nats.aio.client import Client

from infra.testing.mesh import (
    bodies,
    completions,
    enqueue,
    events,
    eventually,
    finished,
    in_time,
    open_mesh,
    queue_is_empty,
)
from schemas import subjects
from schemas.commands import ChatMessage
from schemas.errors import GenerationFailed, WorkerFailed
from schemas.events import RequestSummarised, TaskQueued
from schemas.replies import Result
from schemas.requests.sampling import Sampling
from services.chassis.context import ServiceContext
from services.chassis.work.delivery import Retry
from services.summarizer import ping
from services.summarizer.tests.peers import (
    Says,
    chain,
    enqueue_chain,
    present,
    result_of,
    store_answer,
    summarizing,
)

LONG_STORY = "The giraffe is the tallest animal. It lives in Africa."
PING_PATIENCE_S = 180.0
"""However slow this host is at the moment: a ping that is not answered in time is no figure."""


def always(text: str) -> Says:
    return lambda _prompt: text


async def test_the_second_peer_summarises_what_the_first_wrote(connection: Client) -> None:
    says = {"alpha": always(LONG_STORY), "beta": always("Giraffes are tall.")}
    async with present(connection, says) as peers, summarizing(connection) as mesh:
        await enqueue_chain(mesh, chain("r1", "alpha", "beta", fingerprint="f1"))
        result = await result_of(mesh, "r1")
        await eventually(lambda: queue_is_empty(connection))
    assert peers["alpha"].prompts == ["What is the tallest animal?"]
    assert peers["beta"].prompts == [f"Summarize: {LONG_STORY}"]
    assert (result.topology, result.fingerprint, result.error) == ("chain", "f1", None)
    assert result.text == "Giraffes are tall."
    assert [answer.text for answer in result.answers] == [LONG_STORY, "Giraffes are tall."]


async def test_the_result_says_what_each_peer_did_and_how_far_apart_they_are(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ping, "PATIENCE_S", PING_PATIENCE_S)
    says = {"alpha": always(LONG_STORY), "beta": always("Giraffes are tall.")}
    async with present(connection, says), summarizing(connection) as mesh:
        await enqueue_chain(mesh, chain("r1", "alpha", "beta"))
        result = await result_of(mesh, "r1")
    first, second = result.steps
    assert [(step.model, step.instance, step.tasks) for step in result.steps] == [
        ("alpha", "agent-of-all", 1),
        ("beta", "agent-of-all", 1),
    ]
    assert (first.prompt_tokens, first.generated_tokens, first.tokens_per_s) == (5, 10, 10.0)
    assert first.timings == result.answers[0].timings
    lasted_ns = (result.completed_at_s - result.accepted_at_s) * 1e9
    for step in result.steps:
        assert step.ping_ns is not None and step.ping_ns > 0
        assert step.round_trip_ns is not None and 0 < step.round_trip_ns <= lasted_ns + 1e6
    assert first.network_latency_ns is None
    assert second.network_latency_ns == ((first.ping_ns or 0) + (second.ping_ns or 0)) // 2


async def test_a_chain_of_three_hands_each_text_on(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ping, "PATIENCE_S", PING_PATIENCE_S)
    says: dict[str, Says] = {
        name: lambda prompt, name=name: f"{name}({prompt})"  # type: ignore[misc]
        for name in ("alpha", "beta", "gamma")
    }
    async with present(connection, says), summarizing(connection) as mesh:
        await enqueue_chain(mesh, chain("r1", "alpha", "beta", "gamma", summary_prompt="{text}"))
        result = await result_of(mesh, "r1")
    assert result.text == "gamma(beta(alpha(What is the tallest animal?)))"
    assert [answer.round for answer in result.answers] == [1, 2, 3]
    assert [step.network_latency_ns is None for step in result.steps] == [True, False, False]


async def test_a_model_may_summarise_itself(connection: Client) -> None:
    async with (
        present(connection, {"alpha": lambda prompt: prompt[:30]}) as peers,
        summarizing(connection) as mesh,
    ):
        await enqueue_chain(mesh, chain("r1", "alpha", "alpha", "alpha"))
        result = await result_of(mesh, "r1")
    assert len(peers["alpha"].asked) == len(result.answers) == 3
    assert peers["alpha"].prompts[2] == f"Summarize: {result.answers[1].text}"


async def test_the_template_may_hold_the_question_and_braces(connection: Client) -> None:
    says = {"alpha": always("{text} and {question}"), "beta": always("ok")}
    template = 'Of "{question}" as {{json}}: {text}'
    async with present(connection, says) as peers, summarizing(connection) as mesh:
        await enqueue_chain(mesh, chain("r1", "alpha", "beta", summary_prompt=template))
        await result_of(mesh, "r1")
    assert peers["beta"].prompts == ['Of "What is the tallest animal?" as {json}: {text} and {question}']


async def test_priority_and_deadline_reach_every_peer_and_only_the_last_streams(connection: Client) -> None:
    asked = chain(
        "r1",
        "alpha",
        "beta",
        priority="batch",
        stream=True,
        messages=(ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Why?")),
        sampling=Sampling(seed=7, max_tokens=40, grammar='root ::= "yes"'),
    )
    async with (
        present(connection, {"alpha": always("one"), "beta": always("two")}) as peers,
        summarizing(connection) as mesh,
    ):
        await enqueue_chain(mesh, asked)
        await result_of(mesh, "r1")
    (first,), (second,) = peers["alpha"].asked, peers["beta"].asked
    for task in (first, second):
        assert (task.priority, task.deadline_at_s) == ("batch", asked.deadline_at_s)
        assert task.sampling.seed == 7
        assert task.accepted_at_s >= asked.accepted_at_s
    assert first.messages == asked.messages
    assert [task.stream for task in (first, second)] == [False, True]
    assert [task.sampling.grammar for task in (first, second)] == [None, 'root ::= "yes"']


async def test_what_happened_is_told_in_events(connection: Client) -> None:
    async with (
        present(connection, {"alpha": always("one two"), "beta": always("one")}),
        summarizing(connection) as mesh,
    ):
        await enqueue_chain(mesh, chain("r1", "alpha", "beta"))
        await result_of(mesh, "r1")

        async def told() -> list[RequestSummarised] | None:
            return [e for e in await events(connection) if isinstance(e, RequestSummarised)] or None

        (summarised,) = await eventually(told)
        queued = [e.task_id for e in await events(connection) if isinstance(e, TaskQueued)]
    assert (summarised.model, summarised.pieces, summarised.tasks) == ("beta", 1, 1)
    assert (summarised.request_id, summarised.generated_tokens, summarised.error) == ("r1", 1, None)
    assert queued == ["r1.1.alpha", "r1.2.beta"]


async def test_a_peer_that_fails_ends_the_chain_and_what_was_written_is_kept(connection: Client) -> None:
    says: dict[str, Says] = {
        "alpha": always(LONG_STORY),
        "beta": lambda _prompt: GenerationFailed("out of memory"),
    }
    stopped = await connection.subscribe(subjects.cancel_signal("r1"))
    async with present(connection, says), summarizing(connection) as mesh:
        await enqueue_chain(mesh, chain("r1", "alpha", "beta", "alpha"))
        result = await result_of(mesh, "r1")
        await stopped.next_msg(60)
        await eventually(lambda: queue_is_empty(connection))
    assert result.error is not None
    assert (result.error.code, result.error.message) == ("generation_failed", "step 2 (beta): out of memory")
    assert (result.topology, result.text) == ("chain", None)
    assert [answer.text for answer in result.answers] == [LONG_STORY, ""]


async def test_a_peer_that_writes_nothing_leaves_nothing_to_summarise(connection: Client) -> None:
    async with (
        present(connection, {"alpha": always(" \n"), "beta": always("ok")}) as peers,
        summarizing(connection) as mesh,
    ):
        await enqueue_chain(mesh, chain("r1", "alpha", "beta"))
        result = await result_of(mesh, "r1")
    assert result.error is not None and result.error.code == "generation_failed"
    assert "nothing was written" in result.error.message
    assert peers["beta"].asked == []


async def test_texts_that_are_together_too_large_for_one_message_are_a_typed_error(
    connection: Client,
) -> None:
    huge = "x" * 600_000
    says = {"alpha": always(huge), "beta": always(huge)}
    async with present(connection, says, context_tokens=None), summarizing(connection) as mesh:
        await enqueue_chain(mesh, chain("r1", "alpha", "beta"))
        result = await result_of(mesh, "r1")
        await eventually(lambda: queue_is_empty(connection))
    assert result.error is not None and result.error.code == "payload_too_large"
    assert result.answers == ()


async def test_a_chain_whose_peer_failed_and_was_not_tried_again_in_time_says_what_it_failed_with(
    connection: Client,
) -> None:
    def fail(_prompt: str) -> str:
        raise Retry(WorkerFailed("worker mac-1: it hung up"), delay_s=60)

    async with (
        present(connection, {"alpha": always("A story."), "beta": fail}),
        summarizing(connection) as mesh,
    ):
        result = await in_time(
            partial(ended, mesh),
            lambda result: result.error is None or "hung up" in result.error.message,
            2.0,
        )
    assert result.error is not None and result.error.code == "worker_failed"
    assert result.error.message == (
        "step 2 (beta): worker mac-1: it hung up; the time for this request ran out"
    )
    assert [answer.text for answer in result.answers] == ["A story."]


async def ended(mesh: ServiceContext, request_id: str, timeout_s: float) -> Result:
    """What becomes of a chain of two."""
    await enqueue_chain(mesh, chain(request_id, "alpha", "beta", timeout_s=timeout_s))
    return await result_of(mesh, request_id)


async def test_a_peer_that_never_answers_ends_at_the_deadline(connection: Client) -> None:
    says: dict[str, Says] = {"alpha": always(LONG_STORY), "beta": lambda _prompt: None}
    async with present(connection, says), summarizing(connection) as mesh:
        result = await in_time(partial(ended, mesh), lambda result: bool(result.answers), 1.0)
    assert result.error is not None and result.error.code == "deadline_exceeded"
    assert [answer.text for answer in result.answers] == [LONG_STORY]


async def test_a_chain_waits_for_a_model_that_comes_back(connection: Client) -> None:
    async with present(connection, {"alpha": always(LONG_STORY)}), summarizing(connection) as mesh:
        await enqueue_chain(mesh, chain("r1", "alpha", "beta"))

        async def first_is_done() -> bool:
            return bool(await bodies(connection, subjects.ANSWERS_STREAM))

        await eventually(first_is_done)
        async with present(connection, {"beta": always("ok")}):
            result = await result_of(mesh, "r1")
    assert (result.error, result.text) == (None, "ok")


async def test_a_chain_that_was_begun_before_goes_on_where_it_stopped(connection: Client) -> None:
    """What another summarizer left behind: one answer, and a command that nobody has acknowledged."""
    mesh = open_mesh(connection)
    command = chain("r1", "alpha", "beta")
    await store_answer(mesh, command.generate(1, command.messages, at_s=0.0), LONG_STORY)
    await enqueue_chain(mesh, command)
    async with (
        present(connection, {"alpha": always("again"), "beta": always("ok")}) as peers,
        summarizing(connection),
    ):
        result = await result_of(mesh, "r1")
    assert peers["alpha"].asked == []
    assert peers["beta"].prompts == [f"Summarize: {LONG_STORY}"]
    assert [step.round_trip_ns is None for step in result.steps] == [True, False]


async def test_a_peer_that_was_asked_already_is_not_asked_twice(connection: Client) -> None:
    mesh = open_mesh(connection)
    command = chain("r1", "alpha", "beta")
    await enqueue(mesh, command.generate(1, command.messages, at_s=command.accepted_at_s))
    await enqueue_chain(mesh, command)
    async with (
        present(connection, {"alpha": always("one"), "beta": always("two")}) as peers,
        summarizing(connection),
    ):
        result = await result_of(mesh, "r1")
    assert result.text == "two"
    assert [len(peer.asked) for peer in peers.values()] == [1, 1]


async def test_a_request_that_has_its_result_is_not_taken_along_again(connection: Client) -> None:
    mesh = open_mesh(connection)
    result = finished("r1", "chain").to_bytes()
    await mesh.storage.store_once(subjects.result("r1"), result)
    await enqueue_chain(mesh, chain("r1", "alpha", "beta"))
    async with present(connection, {"alpha": always("one")}) as peers, summarizing(connection):
        await eventually(lambda: queue_is_empty(connection))
    assert await bodies(connection, subjects.RESULTS_STREAM) == [result]
    assert peers["alpha"].asked == []
    assert [event.request_id for event in await completions(connection)] == ["r1"]


async def test_a_cancelled_chain_is_let_go(connection: Client) -> None:
    async with (
        present(connection, {"alpha": lambda _prompt: None}) as peers,
        summarizing(connection) as mesh,
    ):
        await enqueue_chain(mesh, chain("r1", "alpha", "beta", timeout_s=600))
        await eventually(lambda: peers["alpha"].asked)
        await connection.publish(subjects.cancel_signal("r1"))
        await eventually(lambda: queue_is_empty(connection))
    assert await bodies(connection, subjects.RESULTS_STREAM) == []  # whoever cancels stores the result


async def test_what_is_no_chain_ends_in_an_error(connection: Client) -> None:
    async with summarizing(connection) as mesh:
        empty = chain("r1", "alpha", "beta").to_bytes().replace(b'["alpha","beta"]', b"[]")
        subject = subjects.summarize("interactive", "r1")
        await mesh.storage.enqueue(subject, empty, message_id="r1")
        result = await result_of(mesh, "r1")
    assert result.error is not None and result.error.code == "poison_message"


async def test_many_chains_at_once_have_one_result_each(connection: Client) -> None:
    says: dict[str, Says] = {"alpha": lambda prompt: f"of {prompt}", "beta": lambda prompt: prompt}
    async with present(connection, says), summarizing(connection) as mesh, summarizing(connection):
        for number in range(20):
            question = (ChatMessage(role="user", content=f"question {number}"),)
            await enqueue_chain(mesh, chain(f"r{number}", "alpha", "beta", messages=question))
        results = await asyncio.gather(*(result_of(mesh, f"r{number}") for number in range(20)))
        await eventually(lambda: queue_is_empty(connection))
    assert [result.text for result in results] == [f"Summarize: of question {n}" for n in range(20)]
