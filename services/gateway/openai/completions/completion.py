"""The answer to a completion: texts, and the probabilities of their tokens in parallel arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.replies import Result
from services.gateway.openai.completions.body import CompletionBody
from services.gateway.openai.replying.outcome import Choice, choices, usage

PREFIX = "cmpl-"


def text_completion(
    body: CompletionBody, request_id: str, results: Sequence[Result], echoes: Sequence[str]
) -> dict[str, Any]:
    """The whole answer: a choice for each prompt, or `n`. `echoes` are what comes before the texts."""
    told = [
        choice_of(body, result, choice, echo)
        for result, echo in zip(results, echoes, strict=True)
        for choice in choices(result)
    ]
    return {
        "id": PREFIX + request_id,
        "object": "text_completion",
        "created": int(results[0].accepted_at_s),
        "model": body.model,
        "choices": [{"index": number, **choice} for number, choice in enumerate(told)],
        "usage": sum_of_usage(results),
    }


def choice_of(body: CompletionBody, result: Result, choice: Choice, echo: str) -> dict[str, Any]:
    """One text, without its place among the others."""
    silent = body.max_tokens == 0
    generated = () if silent else choice.logprobs
    tokens = (*(_scored(result.answers[0].prompt_logprobs) if body.scores else ()), *generated)
    return {
        "text": echo + ("" if silent else choice.text),
        "logprobs": None if body.alternatives is None else parallel(tokens, body.alternatives),
        "finish_reason": "length" if silent else choice.finish_reason,
    }


def _scored(tokens: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The tokens of the prompt that was given, the first of which has no probability. One that the model has
    before each text is not told, as llama.cpp's own server does: whoever counts the tokens of the text would
    add up one too many."""
    if not tokens or not tokens[0].get("added"):
        return tokens
    return tuple(
        {**token, "logprob": None} if number == 0 else token for number, token in enumerate(tokens[1:])
    )


def sum_of_usage(results: Sequence[Result]) -> dict[str, int]:
    """The tokens of all prompts and texts."""
    used = [usage(result) for result in results]
    return {
        name: sum(one[name] for one in used)
        for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    }


def parallel(tokens: Sequence[Mapping[str, Any]], alternatives: int) -> dict[str, Any]:
    """The probabilities in the arrays of this old interface.

    The first token of a scored prompt has none: null. A token's own probability is the very same number in
    both arrays: lm-evaluation-harness compares them. Of two tokens with one text the more probable is told.
    """
    texts = [str(token["text"]) for token in tokens]
    offsets, length = [], 0
    for text in texts:
        offsets.append(length)
        length += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [token.get("logprob") for token in tokens],
        "top_logprobs": [_top(token, alternatives) for token in tokens],
        "text_offset": offsets,
    }


def _top(token: Mapping[str, Any], alternatives: int) -> dict[str, float] | None:
    if token.get("logprob") is None:
        return None
    top: dict[str, float] = {}
    for other in (*(token.get("top") or ())[:alternatives], token):
        top.setdefault(str(other["text"]), other["logprob"])
    return top
