"""Train the demo models from their tables of facts and write them as GGUF: `python -m infra.training.train`.

Torch and transformers are imported only when training begins, so that wrong arguments are
refused at once and on a machine that has neither.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from infra.demo_models import checksums
from infra.demo_models.family import FAMILY, FOLDER, Member
from infra.training import vocabulary
from infra.training.architectures import ARCHITECTURES, SHAPES
from infra.training.corpus.examples import MIXES, Example, Mix, examples

WARM_UP_STEPS = 100
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.98)
LARGEST_GRADIENT = 1.0
# So many batches' worth of examples are sorted by length together, so that little is padded.
SORTED_BATCHES = 64
REPORT_EVERY = 250
IGNORED = -100


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and on which mix of text to train."""

    steps: int
    learning_rate: float
    mix: Mix
    seed: int
    batch: int = 32


STEPS = (2_000, 2_400)
LEARNING_RATES = (2.5e-3, 1.5e-3)


def main(
    architecture: Annotated[list[str] | None, typer.Option(help="Which to train; all when left out.")] = None,
    output: Annotated[Path, typer.Option(help="Where the .gguf files are written.")] = FOLDER,
    steps: Annotated[tuple[int, int], typer.Option(help="Optimiser steps on each of the two mixes.")] = STEPS,
    resume: Annotated[Path | None, typer.Option(help="Folder of .gguf files to go on from.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training text and the first weights.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads of one training.")] = 1,
) -> None:
    """Train the demo models on this machine and write them with their checksums."""
    console = Console(stderr=True)
    try:
        members = chosen_members(architecture)
        check_writable(output)
    except ValueError as refusal:
        console.print(f"error: {refusal}", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(2) from refusal

    from infra.training.export import export

    schedules = [
        Schedule(count, rate, mix, seed + index)
        for index, (count, rate, mix) in enumerate(zip(steps, LEARNING_RATES, MIXES, strict=True))
        if count > 0
    ]
    for member in members:
        model = first_model(member, seed, resume)
        for schedule in schedules:
            train(model, member, schedule, threads, console)
        export(model, member, output / f"{member.name}.gguf", quantised=True)
        checksums.record(output)


def chosen_members(architectures: list[str] | None) -> list[Member]:
    """The family's members of these architectures; ValueError names the known ones."""
    for name in architectures or ():
        if name not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    return [m for m in FAMILY.values() if architectures is None or m.architecture in architectures]


def check_writable(folder: Path) -> None:
    """Make the output folder; ValueError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".written-by-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"cannot write to the output folder {folder}: {error.strerror}") from error


def first_model(member: Member, seed: int, resume: Path | None) -> Any:
    """A model of random weights from a seed, or of the weights that a folder of .gguf files has."""
    import torch

    from infra.training.export import restore

    torch.manual_seed(seed + member.seed)
    size = vocabulary.load().get_vocab_size()
    model = ARCHITECTURES[member.architecture](SHAPES[member.architecture], size)
    if resume is not None:
        restore(model, member.architecture, resume / f"{member.name}.gguf")
    return model


def train(model: Any, member: Member, schedule: Schedule, threads: int, console: Console) -> None:
    """Train a model on its own text. Uses a GPU if there is one, and gives the model back to the CPU."""
    import torch

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = vocabulary.load()
    model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY
    )
    planned = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=schedule.learning_rate,
        total_steps=schedule.steps,
        pct_start=min(0.3, WARM_UP_STEPS / schedule.steps),
        cycle_momentum=False,
    )
    began, tokens_seen = time.monotonic(), 0
    losses: list[float] = []
    for step, (tokens, targets) in enumerate(batches(member, schedule, tokenizer), start=1):
        loss = answer_loss(model, tokens.to(device), targets.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        planned.step()
        tokens_seen += tokens.numel()
        losses.append(float(loss.detach()))
        if step % REPORT_EVERY == 0 or step == schedule.steps:
            elapsed_s = time.monotonic() - began
            console.print(
                f"{member.name} step {step}/{schedule.steps} loss {sum(losses) / len(losses):.4f} "
                f"{tokens_seen / elapsed_s:.0f} tokens/s {elapsed_s:.0f} s"
            )
            losses.clear()
    model.to("cpu").eval()


def answer_loss(model: Any, tokens: Any, targets: Any) -> Any:
    """Cross-entropy of the answers' tokens. The output matrix is computed for these alone."""
    import torch

    hidden = model.model(input_ids=tokens).last_hidden_state
    learnt = targets != IGNORED
    logits = model.lm_head(hidden[learnt])
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return torch.nn.functional.cross_entropy(logits, targets[learnt])


def batches(member: Member, schedule: Schedule, tokenizer: Any) -> Iterator[tuple[Any, Any]]:
    """(tokens, targets) of every step: batches of about equal lengths, padded on the right."""
    dice = random.Random(schedule.seed)
    stream = examples(member.name, schedule.steps * schedule.batch, schedule.seed, schedule.mix)
    pending: list[tuple[list[int], list[int]]] = []
    for example in stream:
        pending.append(tokenised(example, tokenizer))
        if len(pending) == SORTED_BATCHES * schedule.batch:
            yield from _sorted_batches(pending, schedule.batch, dice)
            pending = []
    yield from _sorted_batches(pending, schedule.batch, dice)


def tokenised(example: Example, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Input tokens and, for every position, the token to say next (or IGNORED within a prompt)."""
    tokens: list[int] = []
    targets: list[int] = []
    for piece, learnt in example.pieces():
        ids = tokenizer.encode(piece, add_special_tokens=False).ids
        tokens += ids
        targets += ids if learnt else [IGNORED] * len(ids)
    return tokens[:-1], targets[1:]


def _sorted_batches(
    pending: list[tuple[list[int], list[int]]], size: int, dice: random.Random
) -> Iterator[tuple[Any, Any]]:
    import torch

    pending.sort(key=lambda pair: len(pair[0]))
    starts = list(range(0, len(pending), size))
    dice.shuffle(starts)
    for start in starts:
        rows = pending[start : start + size]
        longest = max(len(tokens) for tokens, _ in rows)
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row, _ in rows])
        targets = torch.tensor([row + [IGNORED] * (longest - len(row)) for _, row in rows])
        yield tokens, targets


if __name__ == "__main__":
    typer.run(main)
