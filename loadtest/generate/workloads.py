"""The ways of a request through the mesh: one function for each, in the table `WORKLOADS`, and mixes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.faults import WrongOption


@dataclass(frozen=True, slots=True)
class AskOptions:
    """What all requests of a run have in common. `models` are those that may be asked; a single request
    takes them in turn, an ensemble asks all of them, a chain generates with the first and summarises with
    the others."""

    models: tuple[str, ...]
    strategies: tuple[str, ...] = ("majority",)
    max_tokens: int = 32
    temperature: float = 0.0
    timeout_s: float = 60.0
    stream: bool = True


Fields = dict[str, Any]
"""The fields of an `Ask`."""


def single(options: AskOptions, number: int) -> Fields:
    """One model answers."""
    return {"model": options.models[number % len(options.models)]}


def ensemble(options: AskOptions, _number: int) -> Fields:
    """All models answer, and the strategies decide."""
    return {"models": options.models, "strategies": options.strategies}


def chain(options: AskOptions, _number: int) -> Fields:
    """One model generates, the others summarise one after the other."""
    if len(options.models) < 2:
        raise WrongOption("--workload chain needs --models GENERATOR,SUMMARIZER")
    return {"model": options.models[0], "summarize_with": options.models[1:]}


def pipeline(options: AskOptions, number: int) -> Fields:
    """One model answers that runs as a pipeline of stages; to the mesh it is a model like any other."""
    return single(options, number)


WORKLOADS: dict[str, Callable[[AskOptions, int], Fields]] = {
    "single": single,
    "ensemble": ensemble,
    "chain": chain,
    "pipeline": pipeline,
}


def parse_mix(text: str) -> dict[str, float]:
    """`single` or `single:0.7,ensemble:0.3` as shares that add up to 1; WrongOption says what is wrong."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        if name not in WORKLOADS:
            raise WrongOption(f"--workload {name!r}: there are {', '.join(WORKLOADS)}")
        try:
            share = float(weight or 1)
        except ValueError as error:
            raise WrongOption(f"--workload {part}: the weight is not a number") from error
        if not (math.isfinite(share) and share > 0):
            raise WrongOption(f"--workload {part}: a weight is above 0")
        shares[name] = shares.get(name, 0.0) + share
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def workloads(mix: dict[str, float], seed: int) -> Iterator[str]:
    """The workload of each request, in order, drawn with these shares."""
    names, shares = tuple(mix), np.array(tuple(mix.values()))
    rng = np.random.default_rng([seed, 3])
    while True:
        for number in rng.choice(len(names), 256, p=shares):
            yield names[int(number)]


def ask_fields(workload: str, options: AskOptions, number: int, prompt: str) -> Fields:
    """The `Ask` of one request, without its id."""
    return {
        "prompt": prompt,
        "sampling": {"max_tokens": options.max_tokens, "temperature": options.temperature},
        "timeout_s": options.timeout_s,
        "stream": options.stream,
        **WORKLOADS[workload](options, number),
    }
