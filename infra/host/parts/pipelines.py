"""`[[pipelines]]` of choir.toml: which models are to run as pipelines, and asking the mesh for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client
from pydantic import Field, ValidationError, model_validator

from schemas import subjects
from schemas.errors import ChoirError, InternalError, InvalidRequest, MeshUnreachable, error_from_body
from schemas.message import Name
from schemas.pipelines.plan import MAX_STAGES, DraftSource, Partition, Shard, ShardReply, StageDtype
from schemas.replies import ErrorReply, ModelsReply
from services.chassis.plain_words import first_fault
from services.chassis.settings import Section

REPLY_TIMEOUT_S = 20.0
ASK_AGAIN_S = 2.0
LOOK_TIMEOUT_S = 2.0
LOOK_INTERVAL_S = 0.1
BROKEN_PATIENCE_S = 5.0
"""How long a pipeline is waited for of which an instance is gone, or that the router does not know yet."""


class PipelineSection(Section):
    """`[[pipelines]]`: a model that is placed as soon as enough nodes offer it. The fields are those of
    `Shard`. It may stand in the choir.toml of one host or of each: the same again changes nothing.
    """

    model: Name
    stages: int | None = Field(default=None, ge=1, le=MAX_STAGES)
    assign: tuple[Name, ...] = ()
    force: bool = False
    dtype: StageDtype = "f32"
    partition: Partition = "adaptive"
    slots: int = Field(default=8, ge=1, le=256)
    context_tokens: int | None = Field(default=None, ge=32)
    draft: DraftSource | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> PipelineSection:
        try:
            _ = self.spec
        except ValidationError as error:
            raise ValueError(first_fault(error)[1]) from error
        return self

    @property
    def spec(self) -> Shard:
        """What the mesh is asked for."""
        return Shard(**self.model_dump())


async def place(client: Client, spec: Shard) -> ShardReply:
    """Asks a router for a pipeline. Raises its typed error, or MeshUnreachable if none answers."""
    try:
        reply = await client.request(
            subjects.door(subjects.LOCAL_TENANT, subjects.SHARD), spec.to_bytes(), timeout=REPLY_TIMEOUT_S
        )
    except nats.errors.Error as error:
        raise MeshUnreachable(f"no router answers on {subjects.SHARD}") from error
    if reply.headers and subjects.ERROR_CODE_HEADER in reply.headers:
        raise error_from_body(ErrorReply.read(reply.data).error)
    try:
        return ShardReply.read(reply.data)
    except ValidationError as error:
        raise InternalError("the router's reply is of another version") from error


async def until_answers(client: Client, model: str, patience_s: float) -> str | None:
    """Until a placed pipeline can be asked, while its stages load. Else why it can't, in words for people."""
    started_s = time.monotonic()
    while True:
        models = await _models(client)
        found = next((each for each in models.pipelines if each.model == model), None)
        if found is not None and found.problem is not None:
            return f"the pipeline of {model} cannot be asked: {found.problem}"
        if found is not None and found.state == "ready" and any(each.name == model for each in models.models):
            return None
        loads = found is not None and found.state != "broken"
        if time.monotonic() - started_s > (patience_s if loads else min(patience_s, BROKEN_PATIENCE_S)):
            away = [stage.instance for stage in found.stages if not stage.ready] if found is not None else []
            return (
                f"the pipeline of {model} cannot be asked yet: {', '.join(away) or 'the router'} "
                f"{'are' if len(away) > 1 else 'is'} not ready for it; `choir models` shows when it can"
            )
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _models(client: Client) -> ModelsReply:
    """What the router knows now; nothing while it does not answer."""
    try:
        reply = await client.request(
            subjects.door(subjects.LOCAL_TENANT, subjects.MODELS), b"", timeout=LOOK_TIMEOUT_S
        )
        return ModelsReply.read(reply.data)
    except (nats.errors.Error, ValidationError):
        return ModelsReply(models=())


async def place_when_possible(client: Client, spec: Shard, say: Callable[[str], None]) -> None:
    """Asks until the pipeline is placed: nodes may still be starting, here or on other hosts.

    A number of stages that only slows the model down is not insisted on unless it is forced: then there are
    as many as pay off, one if none do. Says why it is not placed, each reason once, and what was in the end.
    """
    said: str | None = None
    while True:
        try:
            reply = await place(client, spec)
        except ChoirError as error:
            if error.message != said:
                say(f"the pipeline of {spec.model} waits: {error.message}")
            said = error.message
            if isinstance(error, InvalidRequest) and await _only_slows(client, spec):
                spec = spec.model_copy(update={"stages": None})
            else:
                await asyncio.sleep(ASK_AGAIN_S)
        else:
            say(f"the pipeline of {spec.model}: {reply.summary}")
            return


async def _only_slows(client: Client, spec: Shard) -> bool:
    """Whether a refused number of stages could be had by force: then speed is all that speaks against it."""
    if spec.stages is None or spec.assign or spec.force:
        return False
    try:
        await place(client, spec.model_copy(update={"force": True, "plan_only": True}))
    except ChoirError:
        return False
    return True
