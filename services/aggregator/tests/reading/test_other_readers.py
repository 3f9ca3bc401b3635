"""What the published rules of two harnesses read in the judged texts, and how often that is read here too.

The rules are those of openai/simple-evals (multiple choice) and of lm-evaluation-harness (MMLU-Pro, MMLU
flan, GSM8K); the figures stand in the README of the evaluation.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from services.aggregator.reading.ballots import normalise
from services.aggregator.tests.reading.test_judged_answers import ALL, Judged

CITIES = [case for case in ALL if case.options == ("Paris", "London", "Rome", "Berlin")]
NUMBERS = [case for case in ALL if case.kind == "number"]


class Rule(NamedTuple):
    """A pattern, which of its finds is taken, and how many texts it reads, and reads as here."""

    texts: list[Judged]
    pattern: str
    taken: int
    reads: int
    as_here: int


RULES = {
    "simple-evals": Rule(CITIES, r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?", 0, 16, 9),
    "MMLU-Pro": Rule(CITIES, r"answer is \(?([A-J])\)?", 0, 25, 19),
    "MMLU flan": Rule(CITIES, r"\(([A-Z])\)", -1, 16, 9),
    "GSM8K, flexible": Rule(NUMBERS, r"(-?[$0-9.,]{2,}|-?[0-9]+)", -1, 55, 32),
    "GSM8K, strict": Rule(NUMBERS, r"#### (\-?[0-9\.\,]+)", 0, 4, 4),
}


def read_by(rule: Rule, text: str) -> str | None:
    """What a rule reads, None where it finds nothing."""
    found = re.findall(rule.pattern, text)
    return str(found[rule.taken]).upper() if found else None


def same(theirs: str, ours: str | None) -> bool:
    """Whether both are one letter, or one number."""
    if ours is None:
        return False
    if theirs.isalpha():
        return theirs == ours
    try:
        return float(theirs.replace(",", "").replace("$", "").removesuffix(".")) == float(ours)
    except ValueError:
        return False


def test_where_the_rules_of_harnesses_read_something_else_is_counted() -> None:
    assert (len(CITIES), len(NUMBERS)) == (194, 63)
    for name, rule in RULES.items():
        read = [(case, theirs) for case in rule.texts if (theirs := read_by(rule, case.text)) is not None]
        agreeing = [
            case for case, theirs in read if same(theirs, normalise(case.text, case.kind, case.options))
        ]
        assert (len(read), len(agreeing)) == (rule.reads, rule.as_here), name
