"""One text made short by one peer: at once if it fits, else part by part (map) and again (reduce)."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from schemas.commands import ChatMessage, Generate, Summarize
from schemas.errors import ContextExceeded, GenerationFailed
from schemas.replies import Answer
from services.summarizer.task_client import TaskClient
from services.summarizer.token_budget import TokenBudget

DIGEST_LENGTH = 16


@dataclass(frozen=True)
class Written:
    """What a peer has written, and its answers for the parts of what it read."""

    answer: Answer
    parts: tuple[Answer, ...] = ()


class Summary:
    """One summarising step of a chain."""

    def __init__(
        self, command: Summarize, step: int, task_client: TaskClient, budget: TokenBudget, max_parts: int
    ) -> None:
        self._command = command
        self._step = step
        self._task_client = task_client
        self._budget = budget
        self._max_parts = max_parts

    async def write(self, text: str) -> Written:
        """The summary of a text.

        Raises ContextExceeded for a text that is too long even so, GenerationFailed if there is nothing to
        summarise, and what the peer itself fails with.
        """
        done: list[Answer] = []
        most = self._max_parts
        level = 1
        while not await self._budget.fits(text):
            pieces = await self._budget.cut(text)
            if len(pieces) > most:
                raise ContextExceeded(self._too_long(len(pieces), level))
            answers = await self._map(pieces, level)
            done += answers
            text = "\n\n".join(answer.text.strip() for answer in answers if answer.text.strip())
            most = len(pieces) - 1
            level += 1
        if not text.strip():
            raise GenerationFailed(f"{self._peer}: nothing was written that could be summarised")
        messages = summary_request(self._command, text)
        answer = await self._task_client.run(
            self._command.generate(self._step, messages, at_s=self._task_client.now())
        )
        return Written(answer, tuple(done))

    async def _map(self, pieces: list[str], level: int) -> list[Answer]:
        """The summary of each piece, asked for side by side."""
        most = await self._budget.answer_tokens()
        tasks = [self._part(piece, level, number, most) for number, piece in enumerate(pieces, start=1)]
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self._task_client.run(task)) for task in tasks]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in running]

    def _part(self, piece: str, level: int, number: int, max_tokens: int) -> Generate:
        """The task for one piece.

        Its name tells what is in it: should another summarizer go on with this request and cut the text at
        other places, it finds no answer that belongs to other words.
        """
        digest = hashlib.sha256(piece.encode()).hexdigest()[:DIGEST_LENGTH]
        messages = summary_request(self._command, piece)
        part = f"part-{level}-{number:03}-{digest}"
        return self._command.generate(
            self._step, messages, part=part, max_tokens=max_tokens, at_s=self._task_client.now()
        )

    @property
    def _peer(self) -> str:
        """Who summarises, as errors name it."""
        return f"step {self._step} ({self._command.peers[self._step - 1]})"

    def _too_long(self, pieces: int, level: int) -> str:
        if level == 1:
            return (
                f"{self._peer}: the text would have to be cut into {pieces} parts, and {self._max_parts} are "
                "allowed (max_parts in section [summarizer]): summarise with a model of a longer context"
            )
        return (
            f"{self._peer}: the summaries are together no shorter than what they summarise ({pieces} parts): "
            "ask for fewer max_tokens, or summarise with a model of a longer context"
        )


def summary_request(command: Summarize, text: str) -> tuple[ChatMessage, ...]:
    """The request's template with `text` and the question in their places; the template has been checked."""
    content = command.summary_prompt.format(text=text.strip(), question=command.question)
    return (ChatMessage(role="user", content=content),)
