"""Who has a slot, and what of each text is in the next step, whoever evaluates it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from schemas.errors import GenerationFailed
from schemas.requests.origin import Origin
from schemas.requests.sampling import Sampling
from services.engine.batching.scheduler import Scheduler
from services.engine.decode.context import Context
from services.engine.decode.sampler import new_sampler
from services.engine.model.model import Model
from services.engine.sequence.generation import Generation
from services.engine.sequence.sequence import Sequence

SLOTS, CONTEXT_TOKENS, BATCH_TOKENS, BESIDE, LEAST_PREFIX = 4, 256, 64, 16, 8
NEXT = ord("a")

Texts = Scheduler[Sequence]


@pytest.fixture
def scheduler(model: Model) -> Iterator[Texts]:
    context = Context(model, slots=SLOTS, context_tokens=CONTEXT_TOKENS, batch_tokens=BATCH_TOKENS, threads=1)
    made = Texts(
        model,
        context,
        slots=SLOTS,
        context_tokens=CONTEXT_TOKENS,
        batch_tokens=BATCH_TOKENS,
        prompt_tokens_beside=BESIDE,
        least_prefix=LEAST_PREFIX,
    )
    yield made
    for sequence in made.close():
        sequence.finish("cancelled")
    context.close()


def submitted(scheduler: Texts, model: Model, prompt: str) -> Sequence:
    sampling = Sampling(max_tokens=100)
    sampler = new_sampler(model, sampling)
    sequence = Sequence(model.tokenize(prompt), sampling, sampler, Generation(lambda: None))
    scheduler.submit(sequence)
    return sequence


def step(scheduler: Texts, most: int = SLOTS) -> list[tuple[int, int]]:
    """The slots of a step with their numbers of tokens; all that want a token get the same."""
    scheduler.admit()
    parts = scheduler.compose(lambda decoding: decoding[:most])
    for part in parts:
        if part.wants_token:
            scheduler.take(part.sequence, NEXT)
    return [(part.sequence.slot, len(part.tokens)) for part in parts]


def test_texts_that_were_left_out_of_a_step_come_first_in_the_next(scheduler: Texts, model: Model) -> None:
    for number in range(SLOTS):
        submitted(scheduler, model, f"{number}")
    step(scheduler)
    steps = [step(scheduler, most=3) for _ in range(4)]
    assert [[slot for slot, _ in one] for one in steps] == [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]


def test_prompts_share_what_is_left_of_a_step(scheduler: Texts, model: Model) -> None:
    submitted(scheduler, model, "first")
    step(scheduler)
    prompts = [submitted(scheduler, model, f"{number}{'x' * 20}") for number in range(2)]
    lengths = [len(prompt.prompt) for prompt in prompts]
    assert step(scheduler) == [(0, 1), (1, BESIDE)]
    assert step(scheduler) == [(0, 1), (1, lengths[0] - BESIDE), (2, 2 * BESIDE - lengths[0])]


def test_what_is_kept_is_told_the_latest_first_and_apart_from_what_is_in_work(
    scheduler: Texts, model: Model
) -> None:
    origins = [Origin("t", (name,)) for name in ("first", "second", "failed", "in work")]
    for origin in origins:
        sequence = submitted(scheduler, model, origin.blocks[0] * 20)
        sequence.origin = origin
        step(scheduler)
        if origin.blocks == ("failed",):
            scheduler.finish(sequence, "error", GenerationFailed("no more"))
        elif origin.blocks != ("in work",):
            scheduler.finish(sequence, "stop")
    first, second, _, in_work = origins
    assert scheduler.kept() == (in_work, second, first)
    assert scheduler.kept(idle=True) == (second, first)


def test_a_short_beginning_or_cells_after_an_error_are_not_shared(scheduler: Texts, model: Model) -> None:
    long, short = "l" * 2 * LEAST_PREFIX, "s" * (LEAST_PREFIX // 2)
    for prompt, error in ((long, None), (short, None), ("e" + long, GenerationFailed("no more"))):
        sequence = submitted(scheduler, model, prompt)
        step(scheduler)
        scheduler.finish(sequence, "error" if error else "stop", error)
    reused = [submitted(scheduler, model, f"{prompt}.") for prompt in (long, short, "e" + long)]
    step(scheduler)
    assert [sequence.prefix_reused >= 2 * LEAST_PREFIX for sequence in reused] == [True, False, False]
    assert [sequence.prefix_reused for sequence in reused[1:]] == [0, 0]
