"""The endpoint `choir.scores`: shows, exports or resets what the mesh has learnt of its agents."""

from __future__ import annotations

from schemas.commands import ReadScores
from services.aggregator.scores.score_codec import scores_reply
from services.aggregator.scores.store import Scores
from services.chassis.context import ServiceContext
from services.chassis.nats.connection import check_payload
from services.chassis.nats.endpoints import Caller


class ScoresHandler:
    """Tells what was learnt of agents, and has it forgotten."""

    def __init__(self, mesh: ServiceContext, scores: Scores) -> None:
        self._mesh = mesh
        self._scores = scores

    async def handle(self, request: ReadScores, caller: Caller) -> None:
        """Sends all that is known; with `reset` it is forgotten before the reply is sent."""
        await self._scores.write()
        await self._scores.reload()
        reply = scores_reply(self._scores.history, reset=request.reset)
        check_payload(self._mesh.client, reply.to_bytes(), field="scores")
        if request.reset:
            await self._scores.reset()
        await caller.send(reply)
