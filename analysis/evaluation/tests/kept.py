"""Kept answers for tests: a few questions, who said what to them, and what happened besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.asking.run_folder import RunConfig, RunFolder
from analysis.evaluation.options import build_options
from schemas.errors import ErrorBody
from schemas.replies import Answer, Result, Timings

CHOICES = ("red", "green", "blue", "grey")
WAYS = {"colours": "flexible"}
TOKENS = 10
MODEL_S = 0.5


def answer(agent: str, text: str, round_: int = 1, model_s: float = MODEL_S, load_s: float = 0.0) -> Answer:
    """An answer of TOKENS tokens, before which a model was loaded for `load_s`."""
    return Answer(
        request_id="r",
        round=round_,
        agent=agent,
        model=agent,
        instance=f"{agent}-1",
        text=text,
        finish_reason="stop",
        prompt_tokens=TOKENS - 2,
        generated_tokens=2,
        timings=Timings(total_duration_ns=int((load_s + model_s) * 1e9), load_duration_ns=int(load_s * 1e9)),
    )


def exchange(
    position: int,
    right: str,
    said: Mapping[str, str],
    *,
    question: str | None = None,
    repetition: int = 0,
    sample: int = 0,
    benchmark: str = "colours",
    topic: str = "paint",
    agents: Sequence[str] | None = None,
    further: Sequence[Answer] = (),
    failed: ErrorBody | None = None,
) -> Exchange:
    """What agents `said` to a question with the right letter `right`; `failed` if the request did."""
    result = Result(
        request_id="r",
        fingerprint="f",
        topology="ensemble",
        answers=tuple(answer(agent, text) for agent, text in said.items()),
        further_answers=tuple(further),
        accepted_at_s=0,
        completed_at_s=1,
    )
    return Exchange(
        request_id=f"{position}-{sample}",
        position=position,
        benchmark=benchmark,
        question_id=question or f"q{position}",
        topic=topic,
        repetition=repetition,
        phase="sample" if sample else "fan_out",
        sample=sample,
        kind="choice",
        choices=CHOICES,
        right=right,
        agents=tuple(agents or said),
        prompt=f"Which colour is {position}?",
        prompt_sha256="0" * 64,
        fingerprint="f",
        seed=7,
        temperature=0.0,
        max_tokens=8,
        stop=("\n",),
        asked_at_s=1000.0 + position,
        wall_s=0.6,
        result=None if failed is not None else result,
        error=failed,
    )


def run_folder(
    results: Path, agents: Sequence[str], benchmarks: Sequence[str], strategies: Sequence[str]
) -> RunFolder:
    """The folder of a run of two repetitions in which nothing has been asked yet."""
    config = RunConfig(
        run_id="run_20261121-000000_test",
        created_at="2026-11-21T00:00:00Z",
        options=build_options({"strategies": tuple(strategies), "repetitions": 2, "deterministic": True}),
        agents=tuple(agents),
        slots=dict.fromkeys(agents, 1),
        benchmarks={
            name: {
                "test": {"location": f"/data/{name}.jsonl", "sha256": "0" * 64, "rows": 10},
                "prompt": "options",
                "extraction": "flexible",
                "few_shot": 0,
                "max_tokens": 8,
            }
            for name in benchmarks
        },
        versions={},
        machine={"cpu": "a processor", "cores": 2},
    )
    return RunFolder.create(results, config)
