"""Results and targets for tests, without a mesh."""

from __future__ import annotations

from typing import Any

from schemas.replies import Answer, ModelSummary, Result, TokenChunk
from schemas.requests.chat import ToolCall
from services.gateway.requests.ensembles import Ensemble
from services.gateway.requests.models import Target

MODEL = ModelSummary(name="small", agents=("one",), slots=1, busy=0)
ONE_MODEL = Target("small:latest", "small", (MODEL,))
ENSEMBLE = Target("choir/majority:latest", "choir/majority", (MODEL,), Ensemble("choir/majority", "majority"))


def answer(text: str, *, agent: str = "small", **fields: Any) -> Answer:
    """What one model answered."""
    given = {"finish_reason": "stop", "prompt_tokens": 5, "generated_tokens": 3, **fields}
    return Answer(request_id="r", agent=agent, model=agent, instance="i", text=text, **given)


def result(text: str, *, calls: tuple[ToolCall, ...] = (), **fields: Any) -> Result:
    """The result of a request to one model."""
    return result_of(answer(text, tool_calls=calls, **fields))


def result_of(*answers: Answer, topology: str = "single") -> Result:
    """A result whose text is that of the first answer."""
    return Result(
        request_id="r",
        fingerprint="f",
        topology=topology,
        text=answers[0].text,
        tool_calls=answers[0].tool_calls,
        answers=answers,
        accepted_at_s=1_700_000_000.25,
        completed_at_s=1_700_000_001.5,
    )


def chunk(text: str, index: int = 0, **fields: Any) -> TokenChunk:
    """A piece of an answer."""
    return TokenChunk(request_id="r", agent="small", index=index, text=text, **fields)
