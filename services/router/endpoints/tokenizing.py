"""The endpoint `choir.tokenize`: passes a question about tokens on to an agent of the model."""

from __future__ import annotations

import nats.errors
from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.commands import Tokenize
from schemas.errors import BrokerUnavailable, UnknownModel, error_from_body
from schemas.replies import ErrorReply, Tokenized
from services.chassis.nats.connection import check_payload
from services.chassis.nats.endpoints import Caller
from services.chassis.nats.sharing import Turns
from services.chassis.registry.directory import Directory

TOKENIZE_TIMEOUT_S = 5.0
AT_ONCE = 4
"""So many questions of one tenant are with agents at a time, which answer one after the other; further ones
wait here."""


class Tokenizing:
    """`tokenize`."""

    def __init__(self, client: Client, directory: Directory) -> None:
        self._client = client
        self._directory = directory
        self._turns = Turns(AT_ONCE)

    async def tokenize(self, request: Tokenize, caller: Caller) -> None:
        """Sends what an agent of the model answers. Raises UnknownModel, BrokerUnavailable, or the agent's
        error."""
        live = self._directory.serving()
        if request.model not in live:
            raise UnknownModel(
                f"model: no live agent serves {request.model!r}; known: {', '.join(live) or 'none'}",
                field="model",
                known=tuple(live),
            )
        question = request.to_bytes()
        check_payload(self._client, question, "text")
        subject = subjects.tokenizer(request.model)
        try:
            async with self._turns.of(caller.tenant):
                reply = await self._client.request(subject, question, timeout=TOKENIZE_TIMEOUT_S)
        except nats.errors.Error as error:
            why = str(error) or type(error).__name__
            raise BrokerUnavailable(f"no agent of {request.model} has tokenized in time: {why}") from error
        if subjects.ERROR_HEADER in (reply.headers or {}):
            raise error_from_body(ErrorReply.read(reply.data).error)
        try:
            await caller.send(Tokenized.read(reply.data))
        except ValidationError as error:
            raise BrokerUnavailable(f"an agent of {request.model} has answered something else") from error
