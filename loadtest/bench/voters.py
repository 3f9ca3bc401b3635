"""Members of an ensemble that are right as often as they are told to, in one process.

python -m loadtest.bench.voters nats://127.0.0.1:4222 DELAY_MS NAME=ACCURACY ...

A question is `Question 17.` and has four options. Which is right, and who errs how, follows from hashes of
its number: members err independently, and say the same whenever they are asked the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
from collections.abc import Sequence
from functools import partial

import nats
import uvloop

from schemas import subjects
from schemas.commands import Embed, Generate
from schemas.errors import InvalidRequest
from schemas.nodes.lease import ServedModel
from schemas.requests.origin import NOBODY, Origin
from schemas.requests.sampling import Sampling
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.nats.connection import ConnectionEvents
from services.chassis.registry.lease import Lease, Load
from services.chassis.work.loop import WorkLoop
from services.tasks.generate import BackendWorker, Generated, OnPiece, Prompt, conversation_of

LETTERS = "ABCD"
SLOTS = 16
CONTEXT_TOKENS = 4_096
HASHED = 2**64


def question(number: int) -> str:
    """The question of a number."""
    return f"Question {number}."


def right_letter(asked: str) -> str:
    """Which of the four options is right."""
    return LETTERS[_hash(f"right {asked}") % len(LETTERS)]


def said(name: str, accuracy: float, asked: str) -> str:
    """What a member answers."""
    right = right_letter(asked)
    if _hash(f"{name} is right {asked}") < accuracy * HASHED:
        return right
    others = [letter for letter in LETTERS if letter != right]
    return others[_hash(f"{name} errs {asked}") % len(others)]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


class Voter:
    """Answers after a while that needs no processor."""

    def __init__(self, name: str, accuracy: float, delay_s: float) -> None:
        self._name = name
        self._accuracy = accuracy
        self._delay_s = delay_s

    async def generate(
        self, prompt: Prompt, _sampling: Sampling, _on_piece: OnPiece | None, _origin: Origin = NOBODY
    ) -> Generated:
        """The letter of an option."""
        asked = conversation_of(prompt).messages[-1].content  # type: ignore[arg-type]
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        letter = said(self._name, self._accuracy, asked)
        return Generated(
            text=letter, finish_reason="stop", prompt_tokens=len(asked.split()), generated_tokens=1
        )

    async def embed(self, embed: Embed) -> Generated:
        """It has no vectors."""
        raise InvalidRequest("embed: a voter has no vectors", field="embed")


async def serve(url: str, delay_ms: float, members: Sequence[tuple[str, float]]) -> None:
    """Works until SIGTERM; each member has a work loop and a lease of its own."""
    connection = await nats.connect(url, inbox_prefix=b"_INBOX_agent")
    for name, accuracy in members:
        mesh = ServiceContext(connection, Identity.of("agent", f"agent-{name}"), ConnectionEvents())
        worker = BackendWorker(mesh, Voter(name, accuracy, delay_ms / 1000))
        consumers = [subjects.generate_consumer(priority, name) for priority in subjects.PRIORITIES]
        loop = WorkLoop(mesh, Generate, subjects.COMMANDS_STREAM, consumers, SLOTS, worker)
        served = ServedModel(name=name, backend="voter", slots=SLOTS, context_tokens=CONTEXT_TOKENS)
        await loop.start()
        await Lease(connection, mesh.identity, partial(Load, slots=SLOTS, models=(served,))).start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


if __name__ == "__main__":
    url, delay_ms, *members = sys.argv[1:]
    named = [each.split("=") for each in members]
    uvloop.run(serve(url, float(delay_ms), [(name, float(accuracy)) for name, accuracy in named]))
