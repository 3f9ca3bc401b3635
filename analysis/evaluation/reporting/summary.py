"""One row for each contestant on each benchmark: how good, how sure, how fast, at what price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.evaluation.asking.usage import UsageSample
from analysis.evaluation.benchmarks import seen_in_training
from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.scoring.families import compared as family_of
from analysis.evaluation.scoring.families import same_as, smallest_difference
from analysis.evaluation.scoring.information import learns_from
from analysis.evaluation.scoring.scores import OVERALL, Contestant, Field, agreement_rates
from analysis.evaluation.scoring.selective import selective_columns
from analysis.statistics.intervals import clustered_mean, wilson
from analysis.statistics.questions import fold
from analysis.statistics.resampling import bca_columns
from analysis.statistics.results import Interval

Row = dict[str, Any]

P50, P95 = 50, 95
SAME_LOAD, OTHER_LOAD, EARLIER_LOAD = "all agents", "one agent", "an earlier run"
"""Under which load a contestant was asked: with all agents at work, while samples were asked of one, or, some
answers of it, in another run."""


def summary_rows(
    field: Field, usage: Sequence[UsageSample], seed: int, repeated: float | None = None
) -> list[Row]:
    """The rows of one benchmark, strategies first, then baselines, then agents.

    `repeated` is the share of later repetitions' texts that say what the first one said.
    """
    ordered = (*field.of("strategy"), *field.of("baseline"), *field.of("agent"))
    agents = agreement_rates(field.of("agent"))
    pairs = agents[np.triu_indices(len(agents), k=1)]
    agreement = float(np.nanmean(pairs)) if np.isfinite(pairs).any() else None
    intervals = bca_columns(np.column_stack([each.means for each in ordered]), seed=seed)
    reference, family, same = ordered[0], len(family_of(field)), same_as(field)
    return [
        {
            **_row(field, each, (low, high), agreement, reference, usage),
            "same_as": same.get(each.name),
            "smallest_difference": smallest_difference(each, reference, family),
            "repeated_texts": repeated,
        }
        for each, (low, high) in zip(ordered, intervals.tolist(), strict=True)
    ]


def _row(
    field: Field,
    contestant: Contestant,
    bca: tuple[float, float],
    agreement: float | None,
    reference: Contestant,
    usage: Sequence[UsageSample],
) -> Row:
    outcomes, questions = contestant.outcomes, contestant.questions
    right = float(contestant.means.sum())
    proportion = wilson(right, questions.n).interval or (None, None)
    clustered = clustered_mean(questions).interval or (None, None)
    by_topic = _clustered_by(contestant, contestant.topics) or (None, None)
    by_template = _clustered_by(contestant, contestant.templates) or (None, None)
    tokens = np.array([outcome.tokens for outcome in outcomes])
    cpu, gpu = processors(usage, contestant.name) if contestant.group == "agent" else (None, None)
    return {
        "benchmark": field.benchmark,
        "contestant": contestant.name,
        "group": contestant.group,
        "learns_from": learns_from(contestant.name, contestant.group),
        "seen_in_training": seen_in_training({outcome.benchmark for outcome in outcomes}),
        "n_questions": questions.n,
        "n_samples": questions.n_samples,
        "accuracy": float(questions.samples.mean()),
        "accuracy_of_the_lots": float(np.mean([outcome.right for outcome in outcomes])),
        "macro_accuracy": macro_accuracy(contestant, by_benchmark=field.benchmark == OVERALL),
        "wilson_low": proportion[0],
        "wilson_high": proportion[1],
        "clustered_low": clustered[0],
        "clustered_high": clustered[1],
        "by_topic_low": by_topic[0],
        "by_topic_high": by_topic[1],
        "by_template_low": by_template[0],
        "by_template_high": by_template[1],
        "bca_low": bca[0],
        "bca_high": bca[1],
        "f1": f1(outcomes),
        **latencies(contestant),
        "agreement_rate": agreement,
        "agrees_with_first": agrees(contestant, reference),
        "cpu_percent": cpu,
        "gpu_percent": gpu,
        "tokens_per_question": float(tokens.mean()),
        "calls_per_question": float(np.mean([outcome.calls for outcome in outcomes])),
        "extraction_failures": sum(outcome.unread for outcome in outcomes),
        "missing_answers": sum(outcome.missing for outcome in outcomes),
        "undecided": sum(outcome.answer is None for outcome in outcomes),
        "ties": sum(outcome.tie for outcome in outcomes),
        "from_cache": sum(outcome.cached for outcome in outcomes),
        "mesh_otherwise": _otherwise(outcomes),
        "fell_back": sum(bool(outcome.fell_back) for outcome in outcomes),
        **selective_columns(contestant),
    }


def _otherwise(outcomes: Sequence[Outcome]) -> int | None:
    """How often the mesh itself decided otherwise; None if it was asked for none of these decisions."""
    asked = [outcome.mesh_agrees for outcome in outcomes if outcome.mesh_agrees is not None]
    return asked.count(False) if asked else None


def macro_accuracy(contestant: Contestant, *, by_benchmark: bool) -> float:
    """The mean over topics, or over benchmarks, of the accuracy on each: each counts alike, however large it
    is.
    """
    scores: dict[str, list[float]] = {}
    for outcome in contestant.outcomes:
        name = outcome.benchmark if by_benchmark else f"{outcome.benchmark}/{outcome.topic}"
        scores.setdefault(name, []).append(outcome.expected)
    return _mean([_mean(of_one) for of_one in scores.values()])


def _clustered_by(contestant: Contestant, clusters: Sequence[str]) -> Interval | None:
    """The interval where all questions of a cluster are one witness; None where that is all or each of
    them.
    """
    if len(set(clusters)) in (1, len(clusters)):
        return None
    return clustered_mean(fold(zip(clusters, contestant.means.tolist(), strict=True))).interval


def latencies(contestant: Contestant) -> Row:
    """How long a contestant takes, and under which load; None, all of it, if not under that of the others."""
    taken = [outcome.latency_s for outcome in contestant.outcomes if outcome.latency_s is not None]
    seconds = np.array(taken) if len(taken) == len(contestant.outcomes) else None
    mean = None if seconds is None else float(seconds.mean())
    cached = any(outcome.cached for outcome in contestant.outcomes)
    return {
        "latency_mean_s": mean,
        "latency_sd_s": None if seconds is None or seconds.size < 2 else float(seconds.std(ddof=1)),
        "latency_load": SAME_LOAD if seconds is not None else EARLIER_LOAD if cached else OTHER_LOAD,
        "latency_p50_s": None if seconds is None else float(np.percentile(seconds, P50)),
        "latency_p95_s": None if seconds is None else float(np.percentile(seconds, P95)),
        "seconds_per_question": mean,
    }


def f1(outcomes: Sequence[Outcome]) -> float:
    """F1 of right answers: precision over the questions that it answered, recall over all of them.

    So a contestant that abstains where it does not know gains precision and loses no recall; without
    abstentions it is the accuracy.
    """
    right = sum(outcome.expected for outcome in outcomes)
    answered = sum(outcome.answer is not None for outcome in outcomes)
    return 2 * right / (answered + len(outcomes))


def agrees(one: Contestant, other: Contestant) -> float | None:
    """How often two gave the same answer, of the questions that both answered; None if there is none."""
    both = [
        (a.answer, b.answer)
        for a, b in zip(one.outcomes, other.outcomes, strict=True)
        if a.answer is not None and b.answer is not None
    ]
    return sum(a == b for a, b in both) / len(both) if both else None


def processors(usage: Sequence[UsageSample], agent: str | None) -> tuple[float | None, float | None]:
    """The mean use of processor and GPU in percent, from the agents' own samples while the run went on.

    `agent` alone, or the sum over all agents; 100 % of processor is one core. None where there is no sample.
    What a run used cannot be told apart by strategy: all are computed from the same answers.
    """
    chosen = [sample for sample in usage if agent is None or agent in sample.models]
    by_instance: dict[str, list[UsageSample]] = {}
    for sample in chosen:
        by_instance.setdefault(sample.instance, []).append(sample)
    if not by_instance:
        return None, None
    cpu = sum(_mean([each.cpu_percent for each in of_one]) for of_one in by_instance.values())
    gpus = [sample.gpu_percent for sample in chosen if sample.gpu_percent is not None]
    return cpu, _mean(gpus) if gpus else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
