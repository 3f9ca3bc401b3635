"""What a result says in OpenAI's words: the texts, why they ended, how many tokens they took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.replies import Result
from services.gateway.requests import outcome
from services.gateway.requests.outcome import Choice as Choice
from services.gateway.requests.outcome import choices as choices


def usage(result: Result) -> dict[str, Any]:
    """The tokens of all answers that were made, members of ensembles and peers of chains included."""
    told = outcome.usage(result)
    used: dict[str, Any] = {
        "prompt_tokens": told.prompt_tokens,
        "completion_tokens": told.generated_tokens,
        "total_tokens": told.prompt_tokens + told.generated_tokens,
    }
    if result.topology == "ensemble":
        used["completion_tokens_details"] = {"reasoning_tokens": 0, "winner_tokens": told.winner_tokens}
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
