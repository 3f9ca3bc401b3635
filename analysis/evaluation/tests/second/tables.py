"""The rows of `summary` and `significance`, from the rows of `decisions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from analysis.evaluation.tests.second.distributions import half_binomial_two_sided
from analysis.evaluation.tests.second.statistics import (
    ALPHA,
    Array,
    bca,
    calibration_error,
    cliffs_delta,
    clustered,
    cochrans_q,
    holm,
    needed,
    paired_t,
    rank_biserial,
    scores_of_the_surest,
    sign_flip,
    smallest_difference,
    tost,
    wilcoxon,
    wilson,
)

Row = dict[str, Any]
PER_UNIT = 24
"""Chances over lots of up to four, averaged over two repetitions, are whole numbers of 1/24."""
RESAMPLED_WITH = 5
"""A seed of its own."""
BASELINES = ("best_agent", "router", "router_online", "best_single", "self_consistency")


@dataclass
class Taker:
    """One contestant: its decisions question by question, and what comes of them."""

    name: str
    rows: list[Row]

    def __post_init__(self) -> None:
        self.rows = sorted(self.rows, key=lambda r: (r["benchmark"], r["question_id"], r["repetition"]))
        self.group = self.rows[0]["group"]
        self.units = [f"{row['benchmark']}/{row['question_id']}" for row in self.rows]
        self.questions = list(dict.fromkeys(self.units))
        self.scores = np.array([row["expected"] for row in self.rows])
        self.means = self.by_question(self.scores)
        self.decided = tuple((row["answer"], row["expected"]) for row in self.rows)
        first = [self.units.index(unit) for unit in self.questions]
        self.first_right = np.array([self.rows[place]["right"] for place in first])
        self.topics = [f"{self.rows[p]['benchmark']}/{self.rows[p]['topic']}" for p in first]
        self.templates = [
            f"{self.rows[p]['benchmark']}/{self.rows[p]['template'] or self.rows[p]['question_id']}"
            for p in first
        ]

    def by_question(self, values: Array) -> Array:
        units = np.array(self.units)
        return np.array([values[units == unit].mean() for unit in self.questions])

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows]


def takers(decisions: Sequence[Row]) -> list[Taker]:
    """Those who were asked all questions, strategies first, then baselines, then agents."""
    by_name: dict[str, list[Row]] = {}
    for row in decisions:
        by_name.setdefault(row["contestant"], []).append(row)
    most = max(map(len, by_name.values()))
    found = [Taker(name, rows) for name, rows in by_name.items() if len(rows) == most]
    return [each for group in ("strategy", "baseline", "agent") for each in found if each.group == group]


def same_as(field: Sequence[Taker]) -> dict[str, str]:
    """Strategies that decide as an earlier one, or that nowhere had more than votes to go by."""
    same: dict[str, str] = {}
    strategies = [each for each in field if each.group == "strategy"]
    for place, each in enumerate(strategies):
        earlier = [other.name for other in strategies[:place] if other.decided == each.decided]
        contested = [said for said in each.column("fell_back") if said is not None]
        if earlier:
            same[each.name] = earlier[0]
        elif contested and all(contested):
            same[each.name] = "majority"
    return same


def family(field: Sequence[Taker]) -> list[tuple[Taker, Taker]]:
    same = same_as(field)
    strategies = [each for each in field if each.group == "strategy" and each.name not in same]
    named = {each.name: each for each in field}
    others = [(one, named[name]) for name in BASELINES if name in named for one in strategies]
    return [(a, b) for a, b in (*combinations(strategies, 2), *others) if a.decided != b.decided]


def summary(field: Sequence[Taker], *, all_together: bool) -> list[Row]:
    same, pairs, reference = same_as(field), len(family(field)), field[0]
    agents = [each.column("answer") for each in field if each.group == "agent"]
    rates = [rate for a, b in combinations(agents, 2) if (rate := _alike(a, b)) is not None]
    rows = []
    for each in field:
        n, right = len(each.questions), float(each.means.sum())
        answered = sum(answer is not None for answer in each.column("answer"))
        seconds = each.column("latency_s")
        timed = None if None in seconds else np.array(seconds)
        macro = each.column("benchmark") if all_together else [
            f"{b}/{t}" for b, t in zip(each.column("benchmark"), each.column("topic"), strict=True)
        ]  # fmt: skip
        by_topic, by_template = (_coarse(each.means, clusters) for clusters in (each.topics, each.templates))
        low, high = clustered(each.scores, each.units) or (None, None)
        squared = float(((each.means - reference.means) ** 2).mean()) or wilson(0, n)[1]
        rows.append(
            {
                "contestant": each.name,
                "n_questions": n,
                "n_samples": len(each.rows),
                "accuracy": each.scores.mean(),
                "accuracy_of_the_lots": np.mean(each.column("right")),
                "macro_accuracy": np.mean(
                    [each.scores[[m == name for m in macro]].mean() for name in sorted(set(macro))]
                ),
                "wilson_low": wilson(right, n)[0],
                "wilson_high": wilson(right, n)[1],
                "clustered_low": low,
                "clustered_high": high,
                "by_topic_low": by_topic[0],
                "by_topic_high": by_topic[1],
                "by_template_low": by_template[0],
                "by_template_high": by_template[1],
                "bca": bca(each.means, RESAMPLED_WITH),
                "f1": 2 * each.scores.sum() / (answered + len(each.rows)),
                "latency_mean_s": None if timed is None else timed.mean(),
                "latency_sd_s": None if timed is None else timed.std(ddof=1),
                "latency_p50_s": None if timed is None else np.median(timed),
                "latency_p95_s": None if timed is None else np.quantile(timed, 0.95),
                "agreement_rate": np.mean(rates) if rates else None,
                "agrees_with_first": _alike(each.column("answer"), reference.column("answer")),
                "tokens_per_question": np.mean(each.column("tokens")),
                "calls_per_question": np.mean(each.column("calls")),
                "extraction_failures": sum(each.column("unread")),
                "missing_answers": sum(each.column("missing")),
                "undecided": len(each.rows) - answered,
                "ties": sum(each.column("tie")),
                "fell_back": sum(bool(said) for said in each.column("fell_back")),
                "same_as": same.get(each.name),
                "smallest_difference": None
                if each is reference
                else smallest_difference(n, squared, ALPHA / max(1, pairs)),
                **_selective(each),
            }
        )
    return rows


def _alike(one: Sequence[Any], other: Sequence[Any]) -> float | None:
    both = [a == b for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return sum(both) / len(both) if both else None


def _coarse(means: Array, clusters: Sequence[str]) -> tuple[float | None, float | None]:
    if len(set(clusters)) in (1, len(clusters)):
        return None, None
    return clustered(means, clusters) or (None, None)


def _selective(each: Taker) -> Row:
    row: Row = dict.fromkeys(
        ("ece_share", "ece", "aurc", "accuracy_at_50", "accuracy_at_80", "accuracy_at_90")
    )
    shares, sure = each.column("share"), each.column("confidence")
    if each.group == "strategy" and None not in shares:
        row["ece_share"] = calibration_error(np.minimum(1.0, np.array(shares, dtype=float)), each.scores)
    if None not in sure:
        certain = np.array(sure, dtype=float)
        surest = scores_of_the_surest(certain, each.scores)
        row["ece"] = calibration_error(certain, each.scores)
        row["aurc"] = float((1 - surest).mean())
        for part in (50, 80, 90):
            row[f"accuracy_at_{part}"] = surest[max(1, round(part / 100 * surest.size)) - 1]
    return row


def significance(field: Sequence[Taker]) -> list[Row]:
    """A row for each pair of the family. The p of random signs is exact here."""
    pairs = family(field)
    equivalence = [tost(one.means - other.means) for one, other in pairs]
    adjusted = holm(equivalence)
    rows = []
    for place, (one, other) in enumerate(pairs):
        differences = one.means - other.means
        squared, difference = float((differences**2).mean()), float(differences.mean())
        alpha = ALPHA / len(pairs)
        only_one = int((one.first_right & ~other.first_right).sum())
        only_other = int((other.first_right & ~one.first_right).sum())
        rows.append(
            {
                "one": one.name,
                "other": other.name,
                "accuracy_one": one.means.mean(),
                "accuracy_other": other.means.mean(),
                "difference": difference,
                "one_better_on": int((differences > 1e-9).sum()),
                "other_better_on": int((differences < -1e-9).sum()),
                "squared_difference": squared,
                "family": len(pairs),
                "permutation_p": sign_flip(differences, PER_UNIT),
                "permutation_p_by_topic": _flip_by(differences, one.topics),
                "permutation_p_by_template": _flip_by(differences, one.templates),
                "equivalence_p": equivalence[place],
                "equivalence_p_holm": adjusted[place],
                "mcnemar_p": half_binomial_two_sided(only_one, only_other),
                "t": paired_t(differences)[0],
                "t_p": paired_t(differences)[1],
                "wilcoxon": wilcoxon(differences)[0],
                "wilcoxon_p": wilcoxon(differences)[1],
                "cliffs_delta": cliffs_delta(one.means, other.means),
                "rank_biserial": rank_biserial(differences),
                "smallest_difference": smallest_difference(len(one.questions), squared, alpha),
                "questions_needed": None
                if difference == 0
                else int(np.ceil(needed(difference, squared, alpha))),
                "bca": bca(differences, RESAMPLED_WITH),
            }
        )
    return rows


def omnibus(field: Sequence[Taker]) -> tuple[float, float]:
    same = same_as(field)
    strategies = [each for each in field if each.group == "strategy" and each.name not in same]
    return cochrans_q(np.column_stack([each.first_right for each in strategies]).astype(int))


def _flip_by(differences: Array, clusters: Sequence[str]) -> float | None:
    names = list(dict.fromkeys(clusters))
    if len(names) in (1, len(clusters)):
        return None
    sums = [differences[[each == name for each in clusters]].sum() for name in names]
    return sign_flip(np.array(sums), PER_UNIT)
