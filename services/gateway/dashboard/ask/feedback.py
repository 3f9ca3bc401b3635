"""Feedback with one click: an answer is right, or it is wrong, and the weights of the agents learn."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from schemas.message import RequestId
from schemas.replies import FeedbackCounted, Result
from services.gateway.dashboard.shell.forms import Form
from services.gateway.dashboard.shell.frame import Frame, done
from services.gateway.http.body import takes

LONGEST = 4_096
Said = Annotated[str, Field(min_length=1, max_length=LONGEST)]


class FeedbackBody(Form):
    """Either the `correct` answer, or one that is `wrong`."""

    request_id: RequestId
    correct: Said | None = None
    wrong: Said | None = None


class FeedbackAction:
    """Passes on what somebody says of a request of their own."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @takes(FeedbackBody)
    async def tell(self, request: Request) -> Response:
        """Counts it, and says for whom and against whom. Raises UnknownRequest, InvalidRequest."""
        body = await self._frame.said(request, FeedbackBody)
        counted = await self._frame.context.mesh.feedback(body.request_id, body.correct, wrong=body.wrong)
        return done(words_of(counted), right=counted.right, wrong=counted.wrong)


def words_of(counted: FeedbackCounted) -> str:
    """What has come of a feedback, as one sentence."""
    if counted.already_counted:
        return "It was counted before; the first word stands."
    right, wrong = ", ".join(counted.right), ", ".join(counted.wrong)
    if not right and not wrong:
        return "Counted; no agent had given such an answer."
    return "Counted: " + "; ".join(
        words for words, who in ((f"right: {right}", right), (f"wrong: {wrong}", wrong)) if who
    )


def verdicts(result: Result) -> tuple[str, ...]:
    """The answers of which somebody can say that they are right: the one that was decided first, then the
    others that an agent gave."""
    if result.error is not None or result.topology == "chain":
        return ()
    if not result.decisions:
        return (result.text,) if result.text and len(result.text) <= LONGEST else ()
    first = result.decisions[0]
    given = [first.answer, *(vote.answer for decision in result.decisions for vote in decision.votes)]
    return tuple(dict.fromkeys(answer for answer in given if answer and len(answer) <= LONGEST))
