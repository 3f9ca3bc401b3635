"""A model that cannot think apart from its answer: each dialect does what its own server does."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

HELLO = [{"role": "user", "content": "Hello"}]
PASSED_OVER: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO, "reasoning_effort": "high"},
    "/v1/responses": {"input": "Hello", "reasoning": {"effort": "low"}},
    "/v1/messages": {
        "messages": HELLO,
        "max_tokens": 64,
        "thinking": {"type": "enabled", "budget_tokens": 1_024},
    },
}


async def test_ollamas_clients_are_told(http: httpx.AsyncClient) -> None:
    for path, asked in (("/api/chat", {"messages": HELLO}), ("/api/generate", {"prompt": "Hello"})):
        refused = await http.post(path, json={"model": "choir-one", "think": True, **asked})
        plain = await http.post(path, json={"model": "choir-one", "think": False, "stream": False, **asked})

        assert (refused.status_code, plain.status_code) == (400, 200)
        assert refused.json() == {"error": '"choir-one" does not support thinking'}


@pytest.mark.parametrize("path", PASSED_OVER)
async def test_others_get_an_answer_without_thoughts(http: httpx.AsyncClient, path: str) -> None:
    reply = await http.post(path, json={"model": "choir-one", **PASSED_OVER[path]})

    assert reply.status_code == 200, reply.text
    assert "Paris" in reply.text
