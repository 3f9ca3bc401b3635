"""What each contestant learns from: contestants that were told more are read with that in mind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.contestants.baselines import BEST_AGENT, ORACLE, SELF_CONSISTENCY
from analysis.evaluation.contestants.batch import LABEL_FREE, SUFFIX
from analysis.evaluation.contestants.outcome import Group
from analysis.evaluation.contestants.replay import BEST_SINGLE
from analysis.evaluation.contestants.routers import ROUTER, ROUTER_ONLINE, TOPIC_BEST

Learns = Literal[
    "nothing", "agreement", "agreement of all", "labels before", "labels of other folds", "the answer"
]

LEARNS: dict[str, Learns] = {
    "weighted": "labels before",
    "topic": "labels before",
    "average": "labels before",
    "auto": "labels before",
    "isp": "agreement",
    "ow_l": "agreement",
    "ow_i": "agreement",
    "dawid_skene": "agreement",
    BEST_AGENT: "labels of other folds",
    BEST_SINGLE: "labels of other folds",
    SELF_CONSISTENCY: "labels of other folds",
    **dict.fromkeys((f"{name}{SUFFIX}" for name in LABEL_FREE), "agreement of all"),
    ROUTER: "labels of other folds",
    ROUTER_ONLINE: "labels before",
    TOPIC_BEST: "the answer",
    ORACLE: "the answer",
}
"""`labels before`: what was right on the questions before; `agreement`: who agreed with whom on these,
whatever was right, and `agreement of all` the same of later ones and the question itself; `labels of other
folds`: what was right on four fifths of the questions, later ones among them."""


def learns_from(name: str, group: Group) -> Learns:
    """Of an agent alone, and of whoever is not in the table: nothing."""
    return "nothing" if group == "agent" else LEARNS.get(name, "nothing")


def repeated_texts(exchanges: Sequence[Exchange]) -> float | None:
    """The share of answers of later repetitions that are the agent's text of the first, letter by letter.

    Near 1, as greedy decoding makes it, repetitions cost as much and tell nothing. None without repetitions.
    """
    first: dict[tuple[str, str, str], str] = {}
    again: list[tuple[tuple[str, str, str], str]] = []
    for kept in exchanges:
        if kept.phase == "sample":
            continue
        for answer in kept.answers:
            key = (kept.benchmark, kept.question_id, answer.agent)
            if kept.repetition == 0:
                first[key] = answer.text
            else:
                again.append((key, answer.text))
    return sum(first.get(key) == text for key, text in again) / len(again) if again else None
