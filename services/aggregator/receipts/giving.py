"""Gives receipts, each with the hash of the one before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from schemas.commands import Gather
from schemas.ensembles.receipts import AnswerHash, Known, Receipt, digest
from schemas.ensembles.scores import Score
from schemas.replies import Answer, Decision, Result
from services.aggregator.decide import Question
from services.aggregator.receipts.signing import Signer
from services.aggregator.scores.history import History
from services.aggregator.scores.score_codec import agreement_scores, unlabelled_scores


class Receipts:
    """The receipts of one aggregator, in the order in which it gives them."""

    def __init__(self, instance: str, signer: Signer | None = None) -> None:
        self._instance = instance
        self._signer = signer
        self._number = 0
        self._previous: str | None = None

    def with_receipt(self, result: Result, gather: Gather, question: Question, history: History) -> Result:
        """The result with its receipt. `history` is what it was decided with."""
        self._number += 1
        receipt = Receipt(
            choir=version("choir"),
            instance=self._instance,
            number=self._number,
            previous=self._previous,
            command_sha256=hashlib.sha256(gather.to_bytes()).hexdigest(),
            fingerprint=result.fingerprint,
            lots=question.seed,
            seed=gather.sampling.seed,
            topic=question.topic,
            strategies=tuple(decision.strategy for decision in result.decisions),
            answers=hashes_of((*result.answers, *result.further_answers)),
            decisions_sha256=hash_of_decisions(result.decisions),
            outcome_sha256=hash_of_outcome(result),
            known=known_of(gather.members, question, history),
            key=None if self._signer is None else self._signer.key,
        )
        if self._signer is not None:
            receipt = receipt.model_copy(update={"signature": self._signer.sign(receipt.signed_bytes)})
        self._previous = receipt.sha256
        return result.model_copy(update={"receipt": receipt})


def hashes_of(answers: Iterable[Answer]) -> tuple[AnswerHash, ...]:
    """The hash of each answer, in order: of what it says, whoever's request it was, and of the model's
    file."""
    return tuple(
        AnswerHash(
            agent=each.agent, round=each.round, sha256=digest(_said(each)), model_sha256=each.model_sha256
        )
        for each in answers
    )


def _said(answer: Answer) -> dict[str, Any]:
    said = answer.model_dump(mode="json", exclude={"request_id", "error", "model_sha256"})
    error = answer.error
    return said | {"error": None if error is None else [error.code, error.message]}


def hash_of_decisions(decisions: Iterable[Decision]) -> str:
    """The hash of all decisions, votes and scores among them."""
    return digest([decision.model_dump(mode="json") for decision in decisions])


def hash_of_outcome(result: Result) -> str:
    """The hash of what a client is told beside answers and decisions."""
    fields = {
        "text",
        "tool_calls",
        "missing",
        "topic",
        "answer_kind",
        "choices",
        "cascade",
        "auto",
        "topology",
    }
    error = result.error
    return digest(
        [
            result.model_dump(mode="json", include=fields),
            None if error is None else [error.code, error.message],
        ]
    )


def known_of(members: Iterable[str], question: Question, history: History) -> Known:
    """All that weights are made from: of the members what feedback told, and of questions with as many
    options what agreement told of everybody."""
    members = tuple(members)
    overall = [_score(agent, None, history.agents.get(agent)) for agent in members]
    on_topic = history.topics.get(question.topic or "", {})
    by_topic = [_score(agent, question.topic, on_topic.get(agent)) for agent in members]
    unlabelled = history.closed.get(question.options or 0)
    options = question.options or 2
    return Known(
        accuracy=tuple(score for score in (*overall, *by_topic) if score is not None),
        agreement=() if unlabelled is None else agreement_scores(unlabelled.agreement, options),
        unlabelled=() if unlabelled is None else unlabelled_scores(unlabelled, options),
    )


def _score(agent: str, topic: str | None, known: Any) -> Score | None:
    if known is None:
        return None
    return Score(agent=agent, topic=topic, correct=known.correct, asked=known.asked)
