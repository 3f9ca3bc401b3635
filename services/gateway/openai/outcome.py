"""What a result says in OpenAI's words: the texts, why they ended, how many tokens they took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.chat import ToolCall
from schemas.replies import Answer, Result, Sample


@dataclass(frozen=True)
class Choice:
    """One text, with what was thought before it and the tools that are to be called."""

    text: str
    thinking: str | None
    tool_calls: tuple[ToolCall, ...]
    cut: bool
    logprobs: tuple[dict[str, Any], ...]

    @property
    def finish_reason(self) -> str:
        """Why the text ended."""
        if self.tool_calls:
            return "tool_calls"
        return "length" if self.cut else "stop"


def choices(result: Result, *, with_members: bool = False) -> tuple[Choice, ...]:
    """The texts of a result, one or `n`. `with_members` has an ensemble's answers for its thoughts."""
    won = winner(result)
    thinking = won.thinking if won is not None else None
    if result.topology == "ensemble":
        thinking = _members(result) if with_members else None
    cut = won is not None and won.finish_reason == "length"
    first = Choice(result.text or "", thinking, result.tool_calls, cut, won.logprobs if won else ())
    further = won.samples if won is not None and result.topology == "single" else ()
    return (first, *map(_choice, further))


def _choice(sample: Sample) -> Choice:
    cut = sample.finish_reason == "length"
    return Choice(sample.text, sample.thinking, sample.tool_calls, cut, sample.logprobs)


def _members(result: Result) -> str:
    """What each member of an ensemble said."""
    said = (answer for answer in result.answers if answer.error is None)
    return "\n\n".join(f"{answer.agent}: {answer.text.strip()}" for answer in said)


def winner(result: Result) -> Answer | None:
    """The answer whose text the result is; None where it is nobody's alone."""
    if result.topology != "ensemble":
        return result.answers[-1] if result.answers else None
    answers = [answer for answer in (*result.answers, *result.further_answers) if answer.error is None]
    return next((answer for answer in reversed(answers) if answer.text == result.text), None)


def usage(result: Result) -> dict[str, Any]:
    """The tokens of all answers that were made, members of ensembles and peers of chains included."""
    answers = (*result.answers, *result.further_answers)
    prompt = sum(answer.prompt_tokens for answer in answers)
    generated = sum(answer.generated_tokens for answer in answers)
    used: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
    }
    if result.topology == "ensemble":
        won = winner(result)
        tokens = won.generated_tokens if won is not None else 0
        used["completion_tokens_details"] = {"reasoning_tokens": 0, "winner_tokens": tokens}
    return used


def logprobs_object(tokens: Iterable[Mapping[str, Any]], alternatives: int) -> dict[str, Any]:
    """The logarithms of probability of each token of a text, with at most so many alternatives."""
    return {"content": [_token(token, alternatives) for token in tokens], "refusal": None}


def _token(token: Mapping[str, Any], alternatives: int) -> dict[str, Any]:
    top = [_ranked(other) for other in (token.get("top") or ())[:alternatives]]
    return {**_ranked(token), "top_logprobs": top}


def _ranked(token: Mapping[str, Any]) -> dict[str, Any]:
    text = str(token["text"])
    return {"token": text, "logprob": token["logprob"], "bytes": list(text.encode())}


def json_arguments(arguments: Mapping[str, Any]) -> str:
    """The arguments of a call as the text that OpenAI's clients read."""
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
