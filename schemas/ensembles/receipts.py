"""Receipts: what an ensemble was decided from, so that anybody can decide it again, without a mesh.

A receipt stands in its result, whose answers and decisions it has the hashes of. It has what the weights came
from, and the hash of the receipt that the same aggregator gave before. Its signature is that of the
aggregator's own key, where the mesh has keys.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field
from pydantic_core import to_json

from schemas.ensembles.scores import AgentAgreement, Score, UnlabelledScore
from schemas.message import Name, Struct, Topic, is_none

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class AnswerHash(Struct):
    """One answer: who gave it in which round, the hash of all that it said, and that of the model's file as
    far as the agent knew it."""

    agent: Name
    round: int
    sha256: Digest
    model_sha256: Annotated[Digest | None, Field(exclude_if=is_none)] = None


class Known(Struct):
    """What was known of the members when it was decided: all that weights are made from."""

    accuracy: tuple[Score, ...] = ()
    agreement: tuple[AgentAgreement, ...] = ()
    unlabelled: tuple[UnlabelledScore, ...] = ()


class Receipt(Struct):
    """`number` counts the receipts of one `instance` since it started, from 1; `previous` is the hash of the
    one before, null of the first. `lots` are what ties fell by, `seed` that of the answers."""

    choir: str
    instance: str
    number: Annotated[int, Field(ge=1)]
    previous: Annotated[Digest | None, Field(exclude_if=is_none)] = None
    command_sha256: Digest
    fingerprint: str
    lots: str
    seed: int
    topic: Topic | None = None
    strategies: tuple[Name, ...]
    answers: tuple[AnswerHash, ...]
    decisions_sha256: Digest
    outcome_sha256: Digest
    known: Known
    key: Annotated[str | None, Field(exclude_if=is_none)] = None
    signature: Annotated[str | None, Field(exclude_if=is_none)] = None

    @property
    def signed_bytes(self) -> bytes:
        """What is signed, and hashed by the next receipt: all but the signature."""
        return self.model_copy(update={"signature": None}).model_dump_json().encode()

    @property
    def sha256(self) -> str:
        """Its hash."""
        return hashlib.sha256(self.signed_bytes).hexdigest()


def digest(value: object) -> str:
    """The hash of a value as JSON."""
    return hashlib.sha256(to_json(value)).hexdigest()
