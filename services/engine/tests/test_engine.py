from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import (
    ConfigurationError,
    ContextExceeded,
    GenerationFailed,
    InvalidRequest,
    ModelUnusable,
)
from schemas.requests.origin import Origin
from schemas.requests.sampling import Sampling
from services.engine import ChatMessage, Engine, Finished, TokenEvent
from services.engine.engine import sensible_threads, usable_cores

SHORT = Sampling(max_tokens=8)
DEADLINE_S = 180.0
PROMPTS = [
    "hi",
    "The quick brown fox jumps over the lazy dog. " * 5,
    "A list: one, two, three,",
    "x" * 300,
    "Water boils at",
    "The quick brown fox",
    "Once upon a time there was a king who " * 8,
    "2+2=",
]


@pytest.fixture
def own_engine(model_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine of eight slots for one test alone, with one thread or as many as its parameter says: two wait
    long for one another where others use the cores."""
    threads: int = getattr(request, "param", 1)
    with Engine.load(model_path, slots=8, context_tokens=512, batch_tokens=64, threads=threads) as engine:
        yield engine


def test_a_prompt_is_continued(engine: Engine) -> None:
    finished = engine.generate("Once upon a time", SHORT)
    assert finished.text
    assert (finished.finish_reason, finished.stop_detail) == ("length", "max_tokens")
    assert finished.generated_tokens == 8
    assert finished.prompt_tokens == engine.count_tokens("Once upon a time")
    assert finished.first_token_ns == finished.queue_ns + finished.prompt_eval_ns > 0


def test_messages_are_rendered_with_the_model_s_template(engine: Engine) -> None:
    messages = (ChatMessage("user", "Hello"),)
    rendered = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert engine.count_tokens(messages) == engine.count_tokens(rendered)
    assert engine.generate(messages, SHORT).text == engine.generate(rendered, SHORT).text


def test_the_events_join_to_the_text_and_end_with_the_outcome(engine: Engine) -> None:
    events: list[TokenEvent | Finished] = []
    finished = engine.submit("Tell me", Sampling(max_tokens=30, logprobs=3), events.append).wait()
    *tokens, last = events
    told = [event for event in tokens if isinstance(event, TokenEvent)]
    assert last is finished and len(told) == len(tokens)
    assert "".join(event.text for event in told) == finished.text
    assert [event.generated_tokens for event in told] == sorted(event.generated_tokens for event in told)
    assert tuple(logprob for event in told for logprob in event.logprobs) == finished.logprobs
    assert len(finished.logprobs) == 30
    assert all(entry.top[0].logprob == entry.logprob for entry in finished.logprobs)


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(engine: Engine) -> None:
    whole = engine.generate("Tell me", Sampling(max_tokens=40)).text
    stop = whole[12:15]
    finished = engine.generate("Tell me", Sampling(max_tokens=40, stop=(stop,)))
    assert finished.text == whole[: whole.index(stop)]
    assert (finished.finish_reason, finished.stop_detail, finished.stop_string) == (
        "stop",
        "stop_string",
        stop,
    )


@pytest.mark.parametrize("own_engine", [1, pytest.param(2, marks=pytest.mark.soak)], indirect=True)
def test_eight_at_once_say_exactly_what_they_say_one_by_one(own_engine: Engine) -> None:
    sampling = Sampling(max_tokens=60)
    together = [own_engine.submit(prompt, sampling) for prompt in PROMPTS]
    texts = [generation.wait().text for generation in together]
    alone = [own_engine.generate(prompt, sampling).text for prompt in PROMPTS]
    assert texts == alone
    assert len(set(texts)) == len(PROMPTS)


def test_thrice_as_many_as_slots_are_all_answered(engine: Engine) -> None:
    generations = [engine.submit(f"Prompt number {i}", SHORT) for i in range(12)]
    outcomes = [generation.wait() for generation in generations]
    assert all(outcome.generated_tokens == 8 for outcome in outcomes)
    assert engine.stats().active == engine.stats().waiting == 0


def test_a_prompt_that_begins_like_the_last_one_is_not_read_again(own_engine: Engine) -> None:
    beginning = "You are a helpful assistant. " * 5
    first = own_engine.generate(beginning + "One?", SHORT)
    second = own_engine.generate(beginning + "Two?", SHORT)
    assert first.prefix_reused_tokens == 0
    assert second.prefix_reused_tokens == own_engine.count_tokens(beginning)
    assert own_engine.stats().prefix_tokens_reused == second.prefix_reused_tokens


def said(engine: Engine, prompt: str, tenant: str = "ann", tokens: int = 8) -> Finished:
    return engine.submit(prompt, Sampling(max_tokens=tokens, temperature=0), origin=Origin(tenant)).wait()


def test_two_conversations_that_begin_alike_are_both_gone_on_with(own_engine: Engine) -> None:
    """A copy of what they share is made where otherwise one would lose its end, and both say what they would
    have said alone."""
    beginning = "You are a helpful assistant, and you know the animals. " * 3
    turns = [beginning + animal * 8 for animal in ("The tall giraffe. ", "The small mouse. ")]
    alone = [
        said(own_engine, turn + end, f"alone {turn}{end}").text for end in ("", "Why?") for turn in turns
    ]
    first = [said(own_engine, turn) for turn in turns]
    again = [said(own_engine, turn + "Why?") for turn in turns]
    assert [one.text for one in (*first, *again)] == alone
    assert first[1].prefix_reused_tokens >= own_engine.count_tokens(beginning) - 1
    for turn, one in zip(turns, again, strict=True):
        assert one.prefix_reused_tokens >= own_engine.count_tokens(turn) - 1


def test_what_is_in_work_serves_others_that_begin_alike(own_engine: Engine) -> None:
    beginning = "You are a helpful assistant, and you know the animals. " * 3
    alone = said(own_engine, beginning + "And the mouse?", "alone").text
    begun = threading.Event()
    long = own_engine.submit(
        beginning + "The giraffe?",
        Sampling(max_tokens=100, temperature=0),
        lambda event: begun.set() if isinstance(event, TokenEvent) else None,
        Origin("ann"),
    )
    assert begun.wait(DEADLINE_S)
    other = said(own_engine, beginning + "And the mouse?")
    stranger = said(own_engine, beginning + "And the mouse?", "bob")
    long.cancel()
    long.wait()
    assert other.prefix_reused_tokens >= own_engine.count_tokens(beginning) - 1
    assert stranger.prefix_reused_tokens == 0
    assert other.text == stranger.text == alone


def test_what_is_kept_of_a_tenant_s_text_serves_no_other_tenant(own_engine: Engine) -> None:
    beginning = "You are a helpful assistant. " * 5
    reused = [
        own_engine.submit(beginning + end, SHORT, origin=Origin(tenant)).wait().prefix_reused_tokens
        for tenant, end in (("ann", "One?"), ("bob", "Two?"), ("ann", "Three?"), ("bob", "Four?"))
    ]
    assert reused[:2] == [0, 0]
    assert reused[2] == reused[3] == own_engine.count_tokens(beginning)


def test_the_same_prompt_again_reads_its_last_token_and_says_the_same(own_engine: Engine) -> None:
    first, second = (own_engine.generate("Say it again", SHORT) for _ in range(2))
    assert second.prefix_reused_tokens == second.prompt_tokens - 1
    assert second.text == first.text


def test_a_cancelled_generation_ends_with_what_it_has_said(engine: Engine) -> None:
    decoding, cancelled = threading.Event(), threading.Event()

    def hold(_event: TokenEvent | Finished) -> None:
        decoding.set()
        cancelled.wait(DEADLINE_S)

    generation = engine.submit("Go on", Sampling(max_tokens=480), hold)
    assert decoding.wait(DEADLINE_S)
    generation.cancel()
    cancelled.set()
    finished = generation.wait(DEADLINE_S)
    assert finished.finish_reason == "cancelled"
    assert 0 < finished.generated_tokens < 480


def test_a_generation_can_be_cancelled_while_it_waits(engine: Engine) -> None:
    cancelled = threading.Event()

    def hold(_event: TokenEvent | Finished) -> None:
        cancelled.wait(DEADLINE_S)

    running = [engine.submit(f"Busy {i}", Sampling(max_tokens=200), hold) for i in range(4)]
    waiting = engine.submit("Never mind", SHORT)
    waiting.cancel()
    cancelled.set()
    finished = waiting.wait(DEADLINE_S)
    assert (finished.finish_reason, finished.generated_tokens, finished.first_token_ns) == ("cancelled", 0, 0)
    for generation in running:
        generation.cancel()
        generation.wait(DEADLINE_S)


def test_a_full_context_ends_the_text(engine: Engine) -> None:
    prompt = "x" * 500
    finished = engine.generate(prompt, Sampling(max_tokens=100))
    assert (finished.finish_reason, finished.stop_detail) == ("length", "context_full")
    assert finished.prompt_tokens + finished.generated_tokens == engine.info.context_tokens + 1


@pytest.mark.parametrize("length", [512, 100_000])
def test_a_prompt_over_the_context_is_refused_at_the_door(engine: Engine, length: int) -> None:
    with pytest.raises(ContextExceeded, match="holds 512") as caught:
        engine.submit("x" * length, SHORT)
    assert caught.value.field == "prompt"
    assert engine.count_tokens("x" * length) == length


def test_an_empty_prompt_is_refused_at_the_door(engine: Engine) -> None:
    with pytest.raises(InvalidRequest):
        engine.submit("", SHORT)


def test_prompts_come_from_many_threads(engine: Engine) -> None:
    texts: list[str] = []

    def ask() -> None:
        texts.append(engine.generate("Same for all", SHORT).text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 8 and len(set(texts)) == 1


def test_the_engine_tells_what_it_did(own_engine: Engine) -> None:
    finished = own_engine.generate("Count me", Sampling(max_tokens=20))
    stats = own_engine.stats()
    assert (stats.active, stats.waiting, stats.slots) == (0, 0, 8)
    assert stats.generated_tokens == 20
    assert stats.prompt_tokens == finished.prompt_tokens
    assert stats.kv_cells_used == finished.prompt_tokens + 19
    assert stats.kv_cells == 8 * 512
    assert stats.decode_tokens_per_s > 0


def test_closing_ends_what_is_not_done_with_an_error(model_path: Path) -> None:
    engine = Engine.load(model_path, slots=1)
    generations = [engine.submit(f"Prompt {i}", Sampling(max_tokens=4_000)) for i in range(3)]
    engine.close()
    engine.close()
    outcomes = [generation.wait(DEADLINE_S) for generation in generations]
    assert {type(outcome.error) for outcome in outcomes} == {GenerationFailed}
    with pytest.raises(GenerationFailed, match="closed"):
        engine.submit("Too late", SHORT)
    with pytest.raises(GenerationFailed, match="closed"):
        engine.count_tokens("Too late")


def test_the_context_is_what_was_asked_for_and_at_most_what_was_trained(model_path: Path) -> None:
    with Engine.load(model_path, context_tokens=100) as small, Engine.load(model_path) as default:
        assert small.info.context_tokens == 100
        assert default.info.context_tokens == 4096
    with Engine.load(model_path, slots=1, context_tokens=1_000_000) as large:
        assert large.info.context_tokens == 4096


@pytest.mark.parametrize("field", ["slots", "context_tokens", "batch_tokens", "threads"])
def test_numbers_that_cannot_be_are_named(model_path: Path, field: str) -> None:
    numbers: dict[str, Any] = {field: 0}
    with pytest.raises(ConfigurationError) as caught:
        Engine.load(model_path, **numbers)
    assert caught.value.field == field


def test_a_damaged_model_file_is_named(model_path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(model_path.read_bytes()[:-500])
    with pytest.raises(ModelUnusable, match=r"damaged\.gguf is not usable: .* truncated"):
        Engine.load(damaged)


def test_a_model_whose_template_is_broken_is_named(model_path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model_path.read_bytes().replace(b"{% endfor %}", b"{% endxxx %}"))
    with pytest.raises(ModelUnusable, match=r"broken\.gguf is not usable: the chat template"):
        Engine.load(broken)


def test_a_small_model_gets_one_thread_and_a_large_one_all_cores() -> None:
    assert sensible_threads(8_000_000) == 1
    assert sensible_threads(10**12) == usable_cores()


@pytest.mark.parametrize(
    ("threads", "fixed", "tried"), [(2, False, True), (2, True, False), (1, False, False)]
)
def test_how_many_threads_are_fastest_is_tried_unless_their_number_is_fixed(
    model_path: Path, threads: int, fixed: bool, tried: bool
) -> None:
    with Engine.load(model_path, slots=1, context_tokens=64, threads=threads, fixed_threads=fixed) as engine:
        assert engine.stats().threads == threads
        assert (engine._loop._threads is not None) == tried
