"""Questions get a topic by their words, or none."""

from __future__ import annotations

import pytest

from services.aggregator.topics import TopicClassifier, TopicWords, shipped
from services.aggregator.topics.classifier import WINDOW, words_of


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("Tell me the capital city of Kenya.", "capitals"),
        ("What is the CURRENCY of Japan?", "currencies"),
        ("12 + 30 = ?", "arithmetic"),
        ("What's the symbol for gold?", "elements"),
        ("Which planet is the largest?", "astronomy"),
        ("What is a baby cow called?", "animals"),
        ("Tom has 3 apples and buys 4 more. How many apples does he have?", "word problems"),
        ("Who wrote Hamlet?", None),
        ("Write a poem about love.", None),
        ("Welche Stadt ist das?", None),
        ("", None),
    ],
)
def test_a_question_is_about_what_its_words_say(text: str, topic: str | None) -> None:
    assert shipped().topic_of(text) == topic


def test_two_topics_that_are_equally_likely_are_none() -> None:
    classifier: TopicClassifier = TopicWords({"sea": {"whale": 5.0}, "land": {"lion": 5.0}})
    assert classifier.topic_of("a whale") == "sea"
    assert classifier.topic_of("a whale and a lion") is None
    assert TopicWords({}).topic_of("a whale") is None


def test_only_a_page_of_a_long_text_is_looked_at() -> None:
    assert words_of("the whale " + "x" * WINDOW + " lion") == ["whale", "x" * (WINDOW - len("the whale "))]
