"""A benchmark: where its files are, how a row is read, and how it is asked unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.evaluation.benchmarks.question import Question
from analysis.evaluation.benchmarks.rows import Row, Source, read

LIKELIHOOD, PER_CHARACTER = "likelihood", "likelihood-per-character"
SCORED = (LIKELIHOOD, PER_CHARACTER)
"""Ways in which nothing is written: the option is taken whose tokens are likeliest after the prompt, or
likeliest by its length; `acc` and `acc_norm` of lm-evaluation-harness."""
INSTRUCTIONS = "instructions"
"""The way in which no answer is read: the whole text is checked by what its prompt asks of it."""


@dataclass(frozen=True)
class Benchmark:
    """`test` and `dev` are files or URLs; examples come from `dev`.

    `template`, `extraction`, `few_shot`, `max_tokens` and `stop` are what its authors, or its usual
    harness, ask with; one whose `extraction` is by likelihood has its options scored, and nothing written.
    `always_shuffled` says that its files have the right option at the same place, `seen` what the demo
    models' training text has of its questions.
    """

    name: str
    parse: Callable[[Row, int], Question]
    test: str
    dev: str | None
    template: str
    extraction: str
    few_shot: int
    max_tokens: int
    stop: tuple[str, ...] = ()
    always_shuffled: bool = False
    seen: str = ""

    def load(self, location: str | None = None) -> tuple[Source, tuple[Question, ...]]:
        """The test questions, from `location` if one is given."""
        return self._parsed(location or self.test)

    def examples(self, location: str | None = None) -> tuple[Source, tuple[Question, ...]] | None:
        """The questions to take examples from; None if there is no file for them."""
        place = location or self.dev
        return None if place is None else self._parsed(place)

    def _parsed(self, location: str) -> tuple[Source, tuple[Question, ...]]:
        source = read(location)
        return source, tuple(self.parse(row, number) for number, row in enumerate(source.rows))


def first_of_topic(questions: Sequence[Question], topic: str, count: int) -> tuple[Question, ...]:
    """The first `count` questions of a topic, as MMLU's authors take them."""
    return tuple(question for question in questions if question.topic == topic)[:count]
