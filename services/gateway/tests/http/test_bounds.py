"""Bounds of what a request may have many of: one more than so many is refused, and the field is named."""

from __future__ import annotations

from typing import Any

import httpx

from schemas.commands import MAX_INPUTS, MAX_MESSAGES, MAX_PROMPT_TOKENS
from schemas.requests.chat import MAX_IMAGES, MAX_TOOLS
from schemas.requests.sampling import MAX_BIASES, MAX_SAMPLES
from services.gateway.openai.completions.body import MAX_PROMPTS

MAX_STOPS, MAX_ALTERNATIVES = 16, 20
USER = {"role": "user", "content": "Hi"}
TALK = {"model": "choir-one", "messages": [USER]}
PICTURE = "AAAA"
DATA_URL = f"data:image/png;base64,{PICTURE}"
PICTURE_BLOCK = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}


def stops(count: int) -> list[str]:
    return [f"stop {number}" for number in range(count)]


def functions(count: int) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": f"f{number}"}} for number in range(count)]


def flat_functions(count: int) -> list[dict[str, Any]]:
    return [{"type": "function", "name": f"f{number}"} for number in range(count)]


def tools(count: int) -> list[dict[str, Any]]:
    return [{"name": f"f{number}", "input_schema": {}} for number in range(count)]


def picture_parts(kind: str, count: int) -> list[dict[str, Any]]:
    return [{"type": kind, "image_url": DATA_URL if kind == "input_image" else {"url": DATA_URL}}] * count


def turns(count: int) -> list[dict[str, Any]]:
    return [USER] * count


def content(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def calls(count: int) -> list[dict[str, Any]]:
    said = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}] * count}
    return [USER, said, USER]


CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, OLLAMA = "/v1/messages", "/api/chat"
BOUNDS: list[tuple[str, str, int, Any]] = [
    (CHAT, "messages", MAX_MESSAGES, lambda n: {"messages": turns(n)}),
    (CHAT, "stop", MAX_STOPS, lambda n: {**TALK, "stop": stops(n)}),
    (CHAT, "tools", MAX_TOOLS, lambda n: {**TALK, "tools": functions(n)}),
    (CHAT, "messages.1.tool_calls", MAX_TOOLS, lambda n: {"messages": calls(n)}),
    (CHAT, "messages.0.images", MAX_IMAGES, lambda n: {"messages": content(*picture_parts("image_url", n))}),
    (CHAT, "n", MAX_SAMPLES, lambda n: {**TALK, "n": n}),
    (CHAT, "top_logprobs", MAX_ALTERNATIVES, lambda n: {**TALK, "logprobs": True, "top_logprobs": n}),
    (CHAT, "logit_bias", MAX_BIASES, lambda n: {**TALK, "logit_bias": {str(i): 1 for i in range(n)}}),
    (COMPLETIONS, "prompt", MAX_PROMPTS, lambda n: {"prompt": ["Hi"] * n, "max_tokens": 1}),
    (COMPLETIONS, "prompt.tokens", MAX_PROMPT_TOKENS, lambda n: {"prompt": [1] * n}),
    (COMPLETIONS, "stop", MAX_STOPS, lambda n: {"prompt": "Hi", "stop": stops(n)}),
    (COMPLETIONS, "logprobs", MAX_ALTERNATIVES, lambda n: {"prompt": "Hi", "logprobs": n}),
    ("/v1/embeddings", "input", MAX_INPUTS, lambda n: {"input": ["Hi"] * n}),
    (RESPONSES, "input", MAX_MESSAGES, lambda n: {"input": turns(n)}),
    (RESPONSES, "tools", MAX_TOOLS, lambda n: {"input": "Hi", "tools": flat_functions(n)}),
    (RESPONSES, "input.0.images", MAX_IMAGES, lambda n: {"input": content(*picture_parts("input_image", n))}),
    (RESPONSES, "metadata", 16, lambda n: {"input": "Hi", "metadata": {str(i): "x" for i in range(n)}}),
    (MESSAGES, "messages", MAX_MESSAGES, lambda n: {"messages": turns(n)}),
    (MESSAGES, "stop_sequences", MAX_STOPS, lambda n: {**TALK, "stop_sequences": stops(n)}),
    (MESSAGES, "tools", MAX_TOOLS, lambda n: {**TALK, "tools": tools(n)}),
    (MESSAGES, "messages.0.images", MAX_IMAGES, lambda n: {"messages": content(*[PICTURE_BLOCK] * n)}),
    (OLLAMA, "messages", MAX_MESSAGES, lambda n: {"messages": turns(n)}),
    (OLLAMA, "stop", MAX_STOPS, lambda n: {**TALK, "options": {"stop": stops(n)}}),
    (OLLAMA, "tools", MAX_TOOLS, lambda n: {**TALK, "tools": functions(n)}),
    (OLLAMA, "messages.0.images", MAX_IMAGES, lambda n: {"messages": [{**USER, "images": [PICTURE] * n}]}),
    (OLLAMA, "top_logprobs", MAX_ALTERNATIVES, lambda n: {**TALK, "logprobs": True, "top_logprobs": n}),
    ("/api/embed", "input", MAX_INPUTS, lambda n: {"input": ["Hi"] * n}),
    ("/detokenize", "tokens", MAX_PROMPT_TOKENS, lambda n: {"tokens": [1] * n}),
]  # fmt: skip


async def test_one_more_than_the_bound_is_refused_by_its_field(http: httpx.AsyncClient) -> None:
    wrong = []
    for path, field, bound, made in BOUNDS:
        for count in (bound, bound + 1):
            given = {"model": "choir-one", "max_tokens": 8, "stream": False, **made(count)}
            reply = await http.post(path, json=given)
            error = reply.json().get("error")
            said = error["message"] if isinstance(error, dict) else error or ""
            is_refused = reply.status_code == 400 and said.startswith(f"{field}: ") and str(bound) in said
            if is_refused != (count > bound):
                wrong.append((path, field, count, reply.status_code, said[:200]))
    assert wrong == []
