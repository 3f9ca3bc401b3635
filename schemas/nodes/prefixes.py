"""What agents of one model say to one another about tasks whose beginnings one of them keeps in its cache."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.message import Message, Name


class OfferTask(Message):
    """`instance` has pulled a task of `model`, and the agent that hears it keeps the beginning of its prompt,
    up to the end of `block`: it may claim the `offer` within `wait_s`, as soon as it has a free slot. One
    that is not `patient` is for an agent that has one now."""

    kind: Literal["offer"] = "offer"
    offer: str
    instance: Name
    model: Name
    block: str
    wait_s: Annotated[float, Field(ge=0)]
    patient: bool = True


class DeclineTask(Message):
    """An offer is of no use to whom it was made: the task need not wait."""

    kind: Literal["decline"] = "decline"
    offer: str


class ClaimTask(Message):
    """Whom the `offer` was made has a free slot for it. The reply is the command, or empty if it is too late.

    The header `Choir-Handed` of the command says where its delivery is acknowledged, which is the claimant's
    to do from then on.
    """

    kind: Literal["claim"] = "claim"
    offer: str


PrefixSignal = OfferTask | DeclineTask | ClaimTask
PREFIX_SIGNAL: TypeAdapter[PrefixSignal] = TypeAdapter(
    Annotated[OfferTask | DeclineTask | ClaimTask, Field(discriminator="kind")]
)
