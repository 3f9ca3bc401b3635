"""What happens when llama.cpp cannot evaluate a batch, and who gets a turn when."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import GenerationFailed, WorkerFailed
from schemas.requests.sampling import Sampling
from services.engine.batching.inference_loop import PROMPT_TOKENS_BESIDE_DECODING, InferenceLoop
from services.engine.batching.thread_count import FIRST_LOOK, ThreadTuner
from services.engine.decode.batch import Batch
from services.engine.decode.context import NO_KV_SPACE, Context, Logits
from services.engine.decode.sampler import new_sampler
from services.engine.model.logs import LLAMA_LOG
from services.engine.model.model import Model
from services.engine.sequence.generation import Finished, Generation, OnEvent, TokenEvent
from services.engine.sequence.sequence import Sequence

FATAL = -3
CONTEXT_TOKENS = 1024


class Bench:
    """A loop whose steps the test takes itself, and whose context it can make fail."""

    def __init__(self, model: Model, slots: int, threads: int = 1) -> None:
        self.model = model
        self.context = Context(
            model, slots=slots, context_tokens=CONTEXT_TOKENS, batch_tokens=256, threads=threads
        )
        self.now_ms = 0.0
        self.step_ms: dict[int, float] = {}
        self.times_by_threads = {1: 1.0}
        self.loop = InferenceLoop(
            model,
            self.context,
            slots=slots,
            context_tokens=CONTEXT_TOKENS,
            batch_tokens=256,
            threads=ThreadTuner(threads),
            clock_ns=lambda: round(self.now_ms * 1e6),
        )
        self.batch_sizes: list[int] = []
        self.threads: list[int] = []
        self.statuses: list[int] = []
        self.meanwhile: list[Callable[[], None]] = []
        self._decode: Callable[[Batch], int] = self.context.decode
        self.context.decode = self.decode  # type: ignore[method-assign]

    def decode(self, batch: Batch) -> int:
        self.batch_sizes.append(batch.size)
        self.threads.append(self.context.threads)
        times = self.times_by_threads[self.context.threads]
        self.now_ms += times * self.step_ms.get(batch.size, batch.size)
        if self.meanwhile:
            self.meanwhile.pop(0)()
        status = self.statuses.pop(0) if self.statuses else 0
        return status or self._decode(batch)

    def submit(self, prompt: str, max_tokens: int = 4, on_event: OnEvent | None = None) -> Generation:
        generation = Generation(self.loop.wake)
        sampling = Sampling(max_tokens=max_tokens)
        tokens = self.model.tokenize(prompt)
        sampler = new_sampler(self.model, sampling)
        self.loop.submit(Sequence(tokens, sampling, sampler, generation, on_event))
        return generation

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.turn()


@pytest.fixture
def bench(model_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """With one thread, or as many as its parameter says."""
    model = Model(model_path)
    bench = Bench(model, slots=3, threads=getattr(request, "param", 1))
    yield bench
    bench.loop.end_all(GenerationFailed("the test is over"))
    bench.context.close()
    model.close()


def test_a_long_prompt_does_not_keep_others_from_decoding(bench: Bench) -> None:
    decoding = bench.submit("short", max_tokens=30)
    bench.step()
    bench.submit("x" * 900)
    before = bench.loop.stats().generated_tokens
    bench.step(4)
    assert bench.loop.stats().generated_tokens == before + 4
    assert bench.batch_sizes[1:] == [1 + PROMPT_TOKENS_BESIDE_DECODING] * 4
    assert not decoding.finished


def test_alone_a_prompt_is_read_in_pieces_as_long_as_a_batch(bench: Bench) -> None:
    bench.submit("x" * 600)
    bench.step(3)
    assert bench.batch_sizes == [256, 256, 600 - 512]


def test_more_prompts_than_slots_wait_in_order(bench: Bench) -> None:
    order: list[int] = []

    def listener(index: int) -> OnEvent:
        return lambda event: order.append(index) if index not in order else None

    for index in range(6):
        bench.submit(f"prompt {index}", on_event=listener(index))
    bench.step()
    assert (bench.loop.stats().active, bench.loop.stats().waiting) == (3, 3)
    bench.step(12)
    assert order == [0, 1, 2, 3, 4, 5]


SLOW_PAIRS = {1: 18.2, 2: 51.6, 3: 59.4}
"""Milliseconds of a step with so many rows, as seen on a CPU with weights of Q8_0."""
FAST_PAIRS = {1: 18.2, 2: 22.0, 3: 25.0}


def test_texts_take_turns_where_steps_of_one_are_faster_than_one_of_all(bench: Bench) -> None:
    undisturbed = [bench.submit(f"text {number}", max_tokens=60) for number in range(2)]
    bench.step_ms = FAST_PAIRS
    bench.step(80)
    # Where two rows take little longer than one, they share nearly all steps
    assert bench.batch_sizes[-20:].count(2) > 15
    # When they take nearly three times as long, that is learnt, and both texts go on in turns
    bench.step_ms = SLOW_PAIRS
    in_turns = [bench.submit(f"text {number}", max_tokens=200) for number in range(2)]
    bench.step(120)
    generated = bench.loop.stats().generated_tokens
    bench.step(20)
    assert bench.batch_sizes[-20:] == [1] * 20
    assert bench.loop.stats().generated_tokens == generated + 20
    assert bench.loop.stats().decode_tokens_per_s == pytest.approx(1e3 / SLOW_PAIRS[1], rel=0.05)
    bench.step(300)
    # And no text notices
    for before, now in zip(undisturbed, in_turns, strict=True):
        assert now.wait(0).text.startswith(before.wait(0).text)


@pytest.mark.parametrize("bench", [2], indirect=True)
def test_a_text_is_the_same_while_the_number_of_threads_changes(bench: Bench) -> None:
    """Given others on the cores, so that a step takes longer with two threads than with one."""
    bench.times_by_threads = {1: 1.0, 2: 4.0}
    text = bench.submit("Once upon a time", max_tokens=3 * FIRST_LOOK)
    bench.step(3 * FIRST_LOOK)
    assert bench.threads[:FIRST_LOOK] == [2] * FIRST_LOOK
    assert bench.threads[-1] == bench.loop.stats().threads == 1
    # A prompt has both all the same
    bench.submit("x" * 200, max_tokens=1)
    bench.step()
    assert bench.threads[-1] == 2
    bench.loop._threads = None
    bench.context.use_threads(1)
    alone = bench.submit("Once upon a time", max_tokens=3 * FIRST_LOOK)
    bench.step(3 * FIRST_LOOK)
    assert alone.wait(0).text == text.wait(0).text


def test_beside_a_prompt_all_texts_go_on(bench: Bench) -> None:
    """Such a step takes long anyway: nobody is left out of it."""
    bench.step_ms = SLOW_PAIRS
    for number in range(2):
        bench.submit(f"text {number}", max_tokens=200)
    bench.step(60)
    assert bench.batch_sizes[-10:] == [1] * 10
    bench.submit("x" * 300)
    bench.step(2)
    assert bench.batch_sizes[-2:] == [2 + PROMPT_TOKENS_BESIDE_DECODING] * 2


def test_without_room_the_prompts_fail_and_texts_that_decode_go_on(bench: Bench) -> None:
    decoding = bench.submit("hello", max_tokens=6)
    bench.step()
    newcomer = bench.submit("another")
    bench.statuses = [NO_KV_SPACE]
    bench.step(10)
    assert newcomer.wait().finish_reason == "error"
    assert isinstance(newcomer.wait().error, GenerationFailed)
    assert "no room in the KV cache" in str(newcomer.wait().error)
    assert decoding.wait().finish_reason == "length"


def test_nobody_waits_for_a_prompt_to_be_read_that_was_given_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    LLAMA_LOG.install()
    decoding, alone = bench.submit("hello", max_tokens=8), bench.submit("hello", max_tokens=8)
    bench.step(12)
    bench.submit("x" * 600).cancel()  # so that the next two have new slots
    again = bench.submit("hello", max_tokens=8)
    bench.step(3)
    long = bench.submit("y" * 900)
    bench.step()
    read = bench.loop.stats().kv_cells_used
    bench.meanwhile = [long.cancel]

    bench.step()

    assert bench.loop.stats().kv_cells_used == read, "the step was not interrupted"
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    bench.step()
    assert long.wait(0).finish_reason == "cancelled"
    bench.step(12)
    assert again.wait(0).text == alone.wait(0).text == decoding.wait(0).text


def test_clients_that_hang_up_all_the_time_keep_nobody_from_decoding(bench: Bench) -> None:
    decoding = bench.submit("hello", max_tokens=8)
    bench.step()
    for number in range(20):
        given_up = bench.submit(f"{number} " + "y" * 900)
        bench.meanwhile = [given_up.cancel]
        bench.step()
    assert decoding.finished


def test_who_hangs_up_after_another_ends_a_step_as_well(bench: Bench) -> None:
    for number in range(3):
        long = bench.submit(f"{number} " + "y" * 900)
        bench.meanwhile = [long.cancel]
        bench.step()
        assert not bench.loop.stats().kv_cells_used, "the step was not interrupted"
        bench.step()
        assert long.wait(0).finish_reason == "cancelled"


def test_a_prompt_that_is_begun_after_an_interrupted_one_is_read_to_its_end(bench: Bench) -> None:
    expected = bench.submit("z" * 600)
    bench.step(10)
    long = bench.submit("y" * 900)
    other = bench.submit("z" * 600 + "and")
    bench.step()
    bench.meanwhile = [long.cancel]
    bench.step(10)
    assert long.wait(0).finish_reason == "cancelled"
    assert other.wait(0).finish_reason == expected.wait(0).finish_reason == "length"


def test_a_fatal_failure_ends_its_batch_and_the_next_is_as_good_as_new(bench: Bench) -> None:
    undisturbed = bench.submit("hello")
    bench.step(4)
    failing = [bench.submit("hello"), bench.submit("other")]
    bench.statuses = [FATAL]
    bench.step()
    assert [generation.wait().finish_reason for generation in failing] == ["error", "error"]
    again = bench.submit("hello")
    bench.step(4)
    assert again.wait().text == undisturbed.wait().text


def test_a_model_that_computes_nan_is_an_error_not_a_random_text(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan(row: int) -> Logits:
        return np.full(bench.model.vocab_size, np.nan, dtype=np.float32)

    monkeypatch.setattr(bench.context, "logits", nan)
    generation = bench.submit("hello")
    bench.step()
    assert "NaN" in str(generation.wait().error)


def test_a_memory_that_cannot_be_cut_is_read_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.submit("hello there")
    bench.step(4)
    forget = bench.context.forget
    monkeypatch.setattr(bench.context, "forget", lambda slot, keep=0: not keep and forget(slot))
    second = bench.submit("hello there")
    bench.step(4)
    assert second.wait().prefix_reused_tokens == 0
    assert second.wait().text == first.wait().text


def test_a_failing_listener_costs_its_own_generation_only(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def listener(event: TokenEvent | Finished) -> None:
        raise RuntimeError("the loop is closed")

    failing = bench.submit("hello", max_tokens=50, on_event=listener)
    fine = bench.submit("other")
    bench.step(6)
    assert failing.wait().finish_reason == "cancelled"
    assert fine.wait().finish_reason == "length"
    assert "the listener of a generation failed" in caplog.text


def test_whatever_ends_the_loop_everybody_gets_an_outcome(bench: Bench) -> None:
    def broken(batch: Batch) -> int:
        raise RuntimeError("a defect")

    bench.context.decode = broken  # type: ignore[method-assign]
    generations = [bench.submit(f"prompt {i}") for i in range(5)]
    with pytest.raises(RuntimeError, match="a defect"):
        bench.loop.run()
    assert {generation.wait().finish_reason for generation in generations} == {"error"}
    with pytest.raises(WorkerFailed, match="RuntimeError: a defect"):
        bench.submit("too late")
