"""What a result says in OpenAI's words: the texts, why they ended, how many tokens they took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.replies import Result
from services.gateway.outcome import Choice as Choice
from services.gateway.outcome import choices as choices
from services.gateway.outcome import winner


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
