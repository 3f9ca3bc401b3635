"""The table of topic words is what the script makes, and finds the topic of questions it has not seen."""

from __future__ import annotations

from analysis.topic_words import held_out, labelled, render
from services.aggregator.topics.classifier import TABLE


def test_the_table_that_is_shipped_is_made_by_the_script() -> None:
    assert TABLE.read_text(encoding="utf-8") == render(labelled())


def test_questions_that_are_not_in_the_table_find_their_topic() -> None:
    right, wrong, silent = held_out(list(labelled()))
    assert right / (right + wrong + silent) > 0.9
    assert wrong / (right + wrong + silent) < 0.02
