"""Several texts for one prompt, each under the next seed, generated side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from schemas.replies import Sample
from schemas.requests.sampling import Sampling
from services.agent.backends.backend import Generated, OnPiece
from services.tasks.token_stream import Piece

SEEDS = 2**32

GenerateOne = Callable[[Sampling, OnPiece | None], Awaitable[Generated]]


async def several(generate: GenerateOne, sampling: Sampling, on_piece: OnPiece | None) -> Generated:
    """The first text, with the others in its `samples`. An error of one ends them all, and is raised; so does
    a cancellation."""
    tasks = [
        asyncio.create_task(_one(generate, sampling_of(sampling, number), on_piece, number))
        for number in range(sampling.n)
    ]
    try:
        first, *others = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return replace(
        first,
        generated_tokens=sum(one.generated_tokens for one in (first, *others)),
        eval_ns=max(one.eval_ns for one in (first, *others)),
        samples=tuple(
            Sample(
                text=one.text,
                thinking=one.thinking,
                tool_calls=one.tool_calls,
                finish_reason=one.finish_reason,
                generated_tokens=one.generated_tokens,
                logprobs=one.logprobs,
            )
            for one in others
        ),
    )


def sampling_of(sampling: Sampling, number: int) -> Sampling:
    """How the text of that number is sampled."""
    return sampling.model_copy(update={"n": 1, "seed": (sampling.seed + number) % SEEDS})


async def _one(generate: GenerateOne, sampling: Sampling, on_piece: OnPiece | None, number: int) -> Generated:
    async def hear(piece: Piece) -> None:
        assert on_piece is not None
        await on_piece(replace(piece, sample=number))

    return await generate(sampling, hear if on_piece is not None and number else on_piece)
