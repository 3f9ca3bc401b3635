"""A chat on a terminal, or line by line through a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from contextlib import AsyncExitStack, aclosing

import typer
from rich.console import Console
from rich.text import Text

from schemas.commands import Ask
from schemas.errors import ChoirError, MeshUnreachable, UnknownModel
from schemas.replies import Result, TokenChunk
from services.cli.sessions.ask_session import CANCEL_PATIENCE_S, print_result
from services.cli.sessions.chat.conversation import Conversation
from services.cli.sessions.chat.loop import InterruptedLoop
from services.cli.sessions.chat.slash import Quit, obey
from services.cli.sessions.last_request import remember
from services.cli.shell.outcome import complain
from services.cli.views.answers.answer_view import NO_ANSWER, decision_line, footer, id_line, rest_of
from services.cli.views.answers.live_answers import LiveAnswers
from services.cli.views.answers.unreadable import unreadable
from services.cli.views.terminal import plain
from services.client.client import Choir

PROMPT = "> "
GREETING = "you talk to {partner}; /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends"


class ChatSession:
    """Reads lines and shows answers. The mesh is spoken to only while an answer is awaited.

    `as_json`: what comes of each line is a JSON document on a line, for a program.
    """

    def __init__(self, conversation: Conversation, out: Console, *, as_json: bool = False) -> None:
        self._conversation = conversation
        self._out = out
        self._as_json = as_json
        self._interactive = out.is_terminal and sys.stdin.isatty() and not as_json

    def run(self) -> None:
        """Until the input ends."""
        stack = AsyncExitStack()
        with InterruptedLoop() as loop:
            mesh: Choir = loop.run(stack.enter_async_context(Choir()))
            try:
                self._check_model(mesh, loop)
                self._greet()
                while True:
                    self._turn(mesh, loop)
            except (Quit, EOFError):
                return
            finally:
                loop.run(stack.aclose())

    def _check_model(self, mesh: Choir, loop: InterruptedLoop) -> None:
        """Raises UnknownModel, before the first line, for one that nobody serves."""
        model = self._conversation.model
        if model is None:
            return
        known = tuple(summary.name for summary in loop.run(mesh.models()))
        if model not in known:
            raise UnknownModel(
                f"model: no live agent serves {model!r}; known: {', '.join(known) or 'none'}",
                field="model",
                known=known,
            )

    def _greet(self) -> None:
        if self._interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  # arrow keys and history for input()
            self._out.print(Text(GREETING.format(partner=self._conversation.partner), "dim"), soft_wrap=True)

    def _turn(self, mesh: Choir, loop: InterruptedLoop) -> None:
        """One line, and what comes of it. On a terminal Ctrl-C does not end the chat, whenever it comes."""
        try:
            if line := loop.read(self._read).strip():
                self._take(line, mesh, loop)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._out.print(Text("\n(Ctrl-D or /quit ends)", "dim"))

    def _read(self) -> str:
        """The next line; EOFError after the last one."""
        if not self._interactive:
            if line := sys.stdin.readline():
                return line
            raise EOFError
        try:
            return input(PROMPT)
        except EOFError:
            self._out.print()
            raise

    def _take(self, line: str, mesh: Choir, loop: InterruptedLoop) -> None:
        try:
            if line.startswith("/"):
                models = tuple(model.name for model in loop.run(mesh.models()))
                self._tell(line, obey(line, self._conversation, models))
                return
            ask = self._conversation.next_ask(line)
            remember(ask.request_id or "")
            self._conversation.remember(line, loop.run(self._answer(mesh, ask)))
        except MeshUnreachable:
            raise
        except ChoirError as error:
            complain(error.body(), self._as_json)

    def _tell(self, command: str, reply: str) -> None:
        """What a slash command has done."""
        if self._as_json:
            typer.echo(json.dumps({"command": command, "reply": reply}, ensure_ascii=False))
        else:
            self._out.print(Text(reply, "dim"), soft_wrap=True)

    async def _answer(self, mesh: Choir, ask: Ask) -> str | None:
        """Shows an answer while it is generated. Ctrl-C stops it: then there is none."""
        shown = LiveAnswers(self._out, quiet=self._as_json, single=ask.model is not None)
        try:
            with shown:
                async with aclosing(mesh.follow(ask)) as replies:
                    async for reply in replies:
                        match reply:
                            case TokenChunk():
                                shown.add(reply)
                            case Result():
                                result = reply
        except asyncio.CancelledError:
            if not self._interactive:
                raise
            await self._stop(mesh, ask)
            return None
        self.finish(result, shown.text)
        return result.text

    async def _stop(self, mesh: Choir, ask: Ask) -> None:
        """Tells the mesh that nobody waits any more, and goes on talking."""
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        with contextlib.suppress(TimeoutError, ChoirError):
            async with asyncio.timeout(CANCEL_PATIENCE_S):
                await mesh.cancel(ask.request_id or "")
        self._out.print(Text("(stopped)", "dim"))

    def finish(self, result: Result, already_shown: str) -> None:
        """Shows what is left of an answer, who gave it, and why there is none if there is none."""
        if self._as_json:
            print_result(result, one_line=True)
            return
        self._out.print(Text(plain(rest_of(result.text or NO_ANSWER, already_shown))), soft_wrap=True)
        if (fault := unreadable(result)) is not None:
            complain(fault.body(), as_json=False)
        if not self._out.is_terminal:
            return
        if result.decisions:
            for decision in result.decisions:
                self._out.print(Text(decision_line(decision), "dim"))
        else:
            for answer in result.answers:
                self._out.print(Text(footer(answer), "dim"))
        self._out.print(Text(id_line(result), "dim"))
