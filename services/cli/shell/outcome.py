"""Exit codes of commands, and the one line about what went wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import typer

if TYPE_CHECKING:
    from schemas.errors import ChoirError, ErrorBody

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
MESH_UNREACHABLE: Final = 3
INTERRUPTED: Final = 130

JSON_FLAG = "--json"

# Typer exports this one of its usage errors; the class of all of them is its base.
UsageError = cast(type[Exception], typer.BadParameter.__bases__[0])

EXIT_CODES = {
    "mesh_unreachable": MESH_UNREACHABLE,
    "invalid_request": WRONG_USAGE,
    "query_refused": WRONG_USAGE,
    "unknown_strategy": WRONG_USAGE,
}

POINTS_INTO = "query_failed"
WHAT_TO_DO = {
    "unknown_model": "`choir models` lists what can be asked",
    "overloaded": "try again in a moment",
    "result_evicted": "ask again under a new request id",
    "deadline_exceeded": "give it more time with --timeout",
    "context_exceeded": "shorten the prompt, or ask a model with a longer context",
    "no_answers": "`choir models` shows whether agents are there; --timeout gives them more time",
    "answers_unreadable": "put the question in other words, or take the answers as they are with --kind text",
    "undecided": "ask more or other models, or ask for less with --min-confidence",
    "model_unusable": "`choir validate` looks at model files, servers and workers",
    "broker_unavailable": "try again; `choir validate` checks the broker",
}


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Runs a command line and returns its exit code: 0, 1, 2, 3, or 130 after Ctrl-C."""
    as_json = JSON_FLAG in arguments
    try:
        code = app(list(arguments), prog_name="choir", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except _choir_error() as error:
        complain(error.body(), as_json)
        return EXIT_CODES.get(error.code, FAILED)
    except UsageError as error:
        complain(_body_of_usage_error(error), as_json)
        return WRONG_USAGE
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.filename is None:
            raise
        complain(_body_of_file_error(error), as_json)
        return FAILED
    except (KeyboardInterrupt, typer.Abort, _cancelled()):
        return INTERRUPTED


def _cancelled() -> type[BaseException]:
    """Imported only once something has gone wrong, as the next one."""
    from asyncio import CancelledError

    return CancelledError


def _choir_error() -> type[ChoirError]:
    """Imported only once something has gone wrong: `choir --help` does without it."""
    from schemas.errors import ChoirError

    return ChoirError


def _body_of_usage_error(error: Any) -> ErrorBody:
    from schemas.errors import ErrorBody

    where = error.ctx.command_path if error.ctx else "choir"
    message = error.format_message().replace("Value error, ", "")  # pydantic's, which says nothing
    return ErrorBody(code="invalid_request", message=f"{message} (see `{where} --help`)")


def _body_of_file_error(error: OSError) -> ErrorBody:
    from schemas.errors import ErrorBody

    return ErrorBody(code="internal", message=f"{error.filename}: {(error.strerror or 'failed').lower()}")


def complain(body: ErrorBody, as_json: bool) -> None:
    """Prints an error: as a document on standard output, or in a line of words on standard error."""
    if as_json:
        document = {"error": body.model_dump(mode="json", exclude_none=True)}
        typer.echo(json.dumps(document, ensure_ascii=False))
    else:
        typer.echo(error_line(body), err=True)


def error_line(body: ErrorBody) -> str:
    """Code, what is wrong and where, and what to do, in one line; of a query with the place in it below."""
    # A query's error points into its statement: its lines stand as they are.
    message = body.message.strip() if body.code == POINTS_INTO else " ".join(body.message.split())
    if body.field is not None and f"{body.field}:" not in message:
        message = f"{body.field}: {message}"
    advice = WHAT_TO_DO.get(body.code)
    return f"choir: {body.code}: {message}" + (f" - {advice}" if advice else "")
