"""What is told of a request to a caller who may not observe the mesh: nothing of where an external server is,
and of what it has said."""

from __future__ import annotations

from dataclasses import replace

from schemas.errors import ChoirError, ErrorBody, error_from_body
from schemas.replies import Answer, Result
from services.client.queries.trace.pieces import Waterfall
from services.gateway.http.errors import line_of, sees_servers, words_of


def told_result(result: Result) -> Result:
    """The same result; its error, and those of its answers, in the words for the current caller."""
    if sees_servers():
        return result
    steps = tuple(
        step.model_copy(update={"parts": _told_answers(step.parts)}) if step.parts else step
        for step in result.steps
    )
    return result.model_copy(
        update={
            "error": _told_body(result.error),
            "answers": _told_answers(result.answers),
            "further_answers": _told_answers(result.further_answers),
            "steps": steps,
        }
    )


def _told_answers(answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
    return tuple(answer.model_copy(update={"error": _told_body(answer.error)}) for answer in answers)


def _told_body(error: ErrorBody | None) -> ErrorBody | None:
    return None if error is None else error.model_copy(update={"message": words_of(error)})


def told_error(error: ChoirError) -> ChoirError:
    """The same error, in the words for the current caller."""
    body = error.body()
    told = words_of(body)
    return error if told == body.message else error_from_body(body.model_copy(update={"message": told}))


def told_way(fall: Waterfall | None) -> Waterfall | None:
    """The same way of a request; what went wrong on it is in the words for the current caller."""
    if fall is None or sees_servers():
        return fall
    pieces = tuple(
        piece if piece.detail is None else replace(piece, detail=line_of(piece.detail))
        for piece in fall.pieces
    )
    return replace(fall, pieces=pieces)
