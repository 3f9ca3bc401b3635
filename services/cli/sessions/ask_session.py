"""Asks one question and shows what comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from schemas.commands import Ask
from schemas.errors import ChoirError, Undecided, error_from_body
from schemas.replies import Accepted, Result, TokenChunk
from services.cli.sessions.last_request import remember
from services.cli.views.answers.answer_view import ResultView
from services.cli.views.answers.live_answers import LiveAnswers
from services.cli.views.answers.unreadable import unreadable
from services.cli.views.terminal import console, print_json, print_json_line
from services.client.client import Choir
from services.client.request_builder import AskOptions, build_ask

CANCEL_PATIENCE_S = 2.0


class AskSession:
    """One question of `choir ask`."""

    def __init__(
        self, prompt: str, options: AskOptions, *, stream: bool, as_json: bool, verbose: bool = False
    ) -> None:
        self._ask = build_ask(prompt, options, stream=stream)
        self._as_json = as_json
        self._verbose = verbose

    async def run(self) -> bool:
        """Asks, shows the text while it is generated if it streams, and shows the result.

        Whether there is an answer; without --json AnswersUnreadable is raised where there is none.
        """
        remember(self._ask.request_id or "")
        shown = LiveAnswers(console(), quiet=self._as_json, single=self._ask.model is not None)
        async with (
            Choir() as mesh,
            cancelled_with_us(mesh, self._ask),
            aclosing(mesh.follow(self._ask)) as replies,
        ):
            try:
                with shown:
                    async for reply in replies:
                        match reply:
                            case TokenChunk() if self._as_json:
                                print_json_line(reply)
                            case TokenChunk():
                                shown.add(reply)
                            case Result():
                                result = reply
            except Undecided as error:
                result = undecided_result(error)
        if self._as_json:
            return print_result(result, one_line=self._ask.stream)
        show_result(result, shown.text, verbose=self._verbose)
        return True

    async def submit(self) -> None:
        """Has the request stored, and prints its id."""
        remember(self._ask.request_id or "")
        async with Choir() as mesh:
            accepted = Accepted(request_id=await mesh.submit_ask(self._ask))
        if self._as_json:
            print_json(accepted)
        else:
            console().print(accepted.request_id)


def undecided_result(error: Undecided) -> Result:
    """The result with all answers that an ensemble gave and did not decide; the error, if none came."""
    if error.result is None:
        raise error
    return error.result


def show_result(result: Result, already_shown: str = "", *, verbose: bool = False) -> None:
    """Shows a result to people. Raises its error, AnswersUnreadable where there is no answer."""
    ResultView(result, already_shown, verbose=verbose).print(console())
    if (fault := unreadable(result)) is not None:
        raise fault
    if result.error is not None:
        raise error_from_body(result.error)


def print_result(result: Result, *, one_line: bool = False) -> bool:
    """Prints a result for programs, with the error where there is no answer; whether there is one."""
    fault = unreadable(result)
    body = fault and fault.body(result.request_id)
    show = print_json_line if one_line else print_json
    show(result.model_copy(update={"error": body}) if body else result)
    return fault is None and result.error is None


@asynccontextmanager
async def cancelled_with_us(mesh: Choir, ask: Ask) -> AsyncIterator[None]:
    """On Ctrl-C the mesh is told that nobody waits any more, so that it works on something else."""
    try:
        yield
    except asyncio.CancelledError:
        with contextlib.suppress(TimeoutError, ChoirError):
            async with asyncio.timeout(CANCEL_PATIENCE_S):
                await mesh.cancel(ask.request_id or "")
        raise
