"""Asks the demo's questions one after another."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from schemas.replies import Decision, Result, TokenChunk
from services.chassis.process.cancelling import check_cancelled
from services.cli.demo.questions import MAX_TOKENS, QUESTIONS, STRATEGIES, TIMEOUT_S, Question
from services.client.client import Choir

MS_PER_S = 1000


@dataclass
class Turn:
    """One question, as far as it has come: texts grow, then the decisions are there."""

    question: Question
    answers: dict[str, str] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    latency_ms: float | None = None

    def as_document(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "prompt": self.question.prompt,
            "answers": self.answers,
            "decisions": {
                strategy: {"answer": decision.answer, "share": decision.share}
                for strategy, decision in self.decisions.items()
            },
            "latency_ms": round(self.latency_ms or 0.0, 1),
        }


async def tour(mesh: Choir, models: tuple[str, ...]) -> AsyncIterator[Turn]:
    """Each question's turn again and again while texts come in, the last time with its decisions.

    Afterwards the mesh is told what was right: so the weights learn from question to question.
    """
    for question in QUESTIONS:
        turn = Turn(question)
        started_s = time.perf_counter()
        replies = mesh.ask_stream(
            question.prompt,
            models=models,
            strategies=STRATEGIES,
            choices=question.choices,
            max_tokens=MAX_TOKENS,
            temperature=0.0,
            timeout_s=TIMEOUT_S,
        )
        async with aclosing(replies):
            async for reply in replies:
                match reply:
                    case TokenChunk():
                        before = "" if reply.restarted else turn.answers.get(reply.agent, "")
                        turn.answers[reply.agent] = before + reply.text
                    case Result():
                        turn.latency_ms = (time.perf_counter() - started_s) * MS_PER_S
                        _complete(turn, reply)
                        await mesh.feedback(reply.request_id, question.right)
                check_cancelled()
                yield turn


def _complete(turn: Turn, result: Result) -> None:
    turn.answers = {answer.agent: answer.text.strip() for answer in result.answers}
    turn.decisions = {decision.strategy: decision for decision in result.decisions}
