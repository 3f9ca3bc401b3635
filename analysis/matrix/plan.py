"""The cells of a matrix, in the order in which they are asked. Pure."""

from __future__ import annotations

import hashlib

from analysis.matrix.options import MatrixOptions
from schemas.commands import Ask
from schemas.message import Struct
from schemas.requests.sampling import Sampling

ID_LENGTH = 24


class Cell(Struct):
    """One measurement: a pair of peers, a prompt (its number counts from 1), and which repetition of it."""

    generator: str
    summarizer: str
    prompt_number: int
    prompt: str
    repetition: int


def cells(options: MatrixOptions) -> list[Cell]:
    """All cells. Every pair is measured once before any is measured again, so that a drift meets them all."""
    return [
        Cell(
            generator=generator,
            summarizer=summarizer,
            prompt_number=number,
            prompt=prompt,
            repetition=repetition,
        )
        for repetition in range(1, options.repetitions + 1)
        for number, prompt in enumerate(options.prompts, start=1)
        for generator in options.generators
        for summarizer in options.summarizers
    ]


def request_id(run_id: str, cell: Cell) -> str:
    """The same for the same cell of the same run, so that a cell that was asked is never asked again."""
    digest = hashlib.sha256(f"{run_id}\n{cell.model_dump_json()}".encode()).hexdigest()
    return f"matrix-{digest[:ID_LENGTH]}"


def ask(run_id: str, cell: Cell, options: MatrixOptions) -> Ask:
    """The request of a cell."""
    return Ask(
        request_id=request_id(run_id, cell),
        prompt=cell.prompt,
        model=cell.generator,
        summarize_with=(cell.summarizer,),
        summary_prompt=options.summary_prompt,
        sampling=Sampling(
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed + cell.repetition - 1,
        ),
        timeout_s=options.timeout_s,
        priority=options.priority,
    )
