"""Where a text is cut: as late as possible, at the best border, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.summarizer.split import split


@given(st.text(alphabet="ab .!?\n\t。é", max_size=200), st.integers(min_value=1, max_value=50))
def test_the_parts_are_the_text_and_none_is_too_long(text: str, limit: int) -> None:
    parts = split(text, limit)
    assert "".join(parts) == text
    assert all(len(part) <= limit for part in parts)
    assert all(parts) or text == ""


@pytest.mark.parametrize(
    ("text", "limit", "parts"),
    [
        ("One two.\n\nThree four.", 15, ["One two.\n\n", "Three four."]),
        ("One.\n\nTwo.\n\nThree.", 13, ["One.\n\nTwo.\n\n", "Three."]),
        ("One.\n \t\nTwo.", 9, ["One.\n \t\n", "Two."]),
        ("One two\nthree four", 11, ["One two\n", "three four"]),
        ("One two. Three four! Five?", 14, ["One two. ", "Three four! ", "Five?"]),
        ('He said: "No." She left.', 16, ['He said: "No." ', "She left."]),
        ("一二三。四五六。", 5, ["一二三。", "四五六。"]),
        ("one two three four", 9, ["one two ", "three ", "four"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("a bcdefgh", 3, ["a ", "bcd", "efg", "h"]),
        ("short", 5, ["short"]),
        ("", 5, [""]),
    ],
)
def test_it_is_cut_at_the_best_border_that_there_is(text: str, limit: int, parts: list[str]) -> None:
    assert split(text, limit) == parts
