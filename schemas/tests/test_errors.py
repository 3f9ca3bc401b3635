"""The tree of errors and its wire form."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from schemas.errors import (
    ERRORS_BY_CODE,
    ChoirError,
    ErrorBody,
    ErrorCode,
    WorkerFailed,
    error_from_body,
)

CODES: tuple[str, ...] = get_args(ErrorCode)


def test_every_code_has_exactly_one_class_and_every_class_its_own_code() -> None:
    classes = ChoirError.__subclasses__()
    ours = [error for error in classes if error.__module__ == "schemas.errors"]

    assert set(ERRORS_BY_CODE) == set(CODES)
    assert sorted(error.code for error in ours) == sorted(CODES)
    assert set(ERRORS_BY_CODE.values()) == set(ours)


@pytest.mark.parametrize("code", CODES)
def test_an_error_comes_back_from_the_wire(code: str) -> None:
    error = ERRORS_BY_CODE[code]("what was wrong", field="model", retry_after_s=1.5, known=("alto",))
    sent = error.body("request-1").model_dump_json()

    back = error_from_body(ErrorBody.model_validate_json(sent))

    assert type(back) is type(error)
    assert (back.message, back.field, back.retry_after_s, back.known) == (
        "what was wrong",
        "model",
        1.5,
        ("alto",),
    )
    assert str(back) == "what was wrong"
    assert back.body("request-1") == error.body("request-1")


@pytest.mark.parametrize("code", CODES)
def test_every_error_says_in_one_sentence_when_it_is_raised(code: str) -> None:
    docstring = ERRORS_BY_CODE[code].__doc__ or ""
    assert docstring.startswith("Raised ")
    assert docstring.endswith(".")


def test_a_code_that_only_a_newer_version_has_is_an_error_without_a_better_name() -> None:
    body = ErrorBody.model_validate({"code": "out_of_ink", "message": "the pen is empty"})
    assert (body.code, body.message) == ("internal", "the pen is empty")
    with pytest.raises(ValidationError, match="code"):
        ErrorBody.model_validate({"code": 7, "message": "the pen is empty"})


def test_an_error_does_not_command_the_terminal_that_shows_it() -> None:
    """It may quote a server, a name, a column: who wrote that is not to clear anybody's screen."""
    body = WorkerFailed("it says \x1b[2J\x9b1A\x07no\nand\tmore", field="a\x1b]0;x", known=("b\x00",)).body()
    assert body.message == "it says [2J1Ano\nand\tmore"
    assert (body.field, body.known) == ("a]0;x", ("b",))
