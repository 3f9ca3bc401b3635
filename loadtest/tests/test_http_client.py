"""The lean HTTP client of the benchmarks."""

from __future__ import annotations

import pytest

from loadtest.bench.http.http_client import said

EVENT = b'data: {"choices": [{"delta": {"content": "hi"}}]}'


@pytest.mark.parametrize(
    ("event", "text"),
    [(EVENT, "hi"), (b"id: r1-3\n" + EVENT, "hi"), (b": keep-alive", None), (b"data: [DONE]", None)],
)
def test_an_event_says_its_text_whatever_lines_it_has(event: bytes, text: str | None) -> None:
    assert said(event) == text
