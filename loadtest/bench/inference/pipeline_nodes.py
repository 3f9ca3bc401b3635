"""A pipeline under measurement: stage services, each pinned to a core, and what their journal tells."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from nats.aio.client import Client
from nats.aio.msg import Msg

from loadtest.bench.processes import BenchMesh, bench_mesh
from schemas import subjects
from schemas.errors import MeshUnreachable
from schemas.events import ANY_EVENT, StageStepped
from schemas.pipelines.plan import DraftSource, PipelinePlan, Shard
from schemas.pipelines.stage_wire import Token, unpack
from schemas.replies import Result
from services.client.client import Choir

MODEL = "bench"
READY_DEADLINE_S = 90.0
PATIENCE_S = 600.0
POLL_S = 0.05
SETTLE_S = 1.2
"""Within this time stages tell of their last steps."""
LEAST_TOKENS, MOST_TOKENS = 24, 64
SERVICE = "services.shard_stage"


def tokens_of(sequences: int) -> int:
    """How many tokens each of so many sequences decodes, so that no measurement takes long."""
    return max(LEAST_TOKENS, MOST_TOKENS - 2 * sequences)


@dataclass(frozen=True)
class Decoded:
    """Tokens per second while all sequences decoded, the mean micro-batch of each stage, and how many tokens
    the longest prompt has."""

    tokens_per_s: float
    micro_batches: list[float]
    prompt_tokens: int


class Nodes:
    """Stage services on cores of their own, a router, and a client that asks the pipeline."""

    def __init__(self, mesh: BenchMesh, model: Path, cache: Path, size: dict[str, int]) -> None:
        self._mesh = mesh
        self._model = model
        self._cache = cache
        self._size = size
        self.processes: dict[str, psutil.Process] = {}

    @property
    def connection(self) -> Client:
        """The bench's own connection."""
        return self._mesh.connection

    @property
    def url(self) -> str:
        """Where the broker is."""
        return self._mesh.url

    def start(self, name: str, core: int, service: str = SERVICE) -> None:
        """A stage service on one core; `service` is its module."""
        offer = {
            "name": MODEL,
            "path": str(self._model),
            "context_tokens": self._size["context_tokens"],
        }
        section = {"name": name, "models": [offer], "cache": str(self._cache), "threads": 1}
        env = {"CHOIR_STAGE": json.dumps(section), "CHOIR_INSTANCE": name}
        self._mesh.spawn("loadtest.bench.inference.pinned", str(core), service, env=env)
        self.processes[name] = psutil.Process(self._mesh.processes[-1].pid)

    async def place(self, *instances: str, draft: DraftSource | None = None) -> PipelinePlan:
        """Has the model placed on the instances, in order, and waits until it can be asked."""
        request = Shard(
            model=MODEL, stages=len(instances), assign=instances, force=True, draft=draft, **self._size
        )
        async with Choir(self._mesh.url) as client:
            await self.offered(*instances)
            async with asyncio.timeout(READY_DEADLINE_S):
                reply = await client.shard(request)
                while MODEL not in {model.name for model in await client.models()}:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        assert reply.plan is not None
        return reply.plan

    async def offered(self, *instances: str) -> None:
        """Waits until these instances have made their offers."""
        async with Choir(self._mesh.url) as client, asyncio.timeout(READY_DEADLINE_S):
            found: set[str] = set()
            while not set(instances) <= found:
                await asyncio.sleep(POLL_S)
                with suppress(MeshUnreachable):  # while the router starts
                    found = {node.instance for node in await client.nodes() if node.stage is not None}

    async def ask(self, prompts: Sequence[str], max_tokens: int) -> list[Result]:
        """All prompts at once."""
        async with Choir(self._mesh.url) as client:
            asks = [
                client.ask(prompt, model=MODEL, max_tokens=max_tokens, timeout_s=PATIENCE_S)
                for prompt in prompts
            ]
            return list(await asyncio.gather(*asks))

    async def decode(self, plan: PipelinePlan, sequences: int) -> Decoded:
        """What the pipeline does when so many sequences begin at once."""
        prompts = [f"Sequence {number} reads:" for number in range(sequences)]
        async with self.journal(plan) as journal:
            results = await self.ask(prompts, tokens_of(sequences))
            await asyncio.sleep(SETTLE_S)
        return Decoded(
            journal.tokens_per_s(),
            [journal.decode_batch(stage) for stage in range(len(plan.stages))],
            max(result.answers[0].prompt_tokens for result in results),
        )

    @asynccontextmanager
    async def journal(self, plan: PipelinePlan) -> AsyncIterator[Journal]:
        """What comes back to stage 0 while the context is open."""
        journal = Journal()
        subject = subjects.stage(plan.number, 0)
        subscription = await self.connection.subscribe(subject, cb=journal.on_message)
        steps = await self.connection.subscribe(
            subjects.event("shard_stage", "stage_stepped"), cb=journal.on_event
        )
        await self.connection.flush()
        try:
            yield journal
        finally:
            await subscription.unsubscribe()
            await steps.unsubscribe()


class Journal:
    """When each token came, which they were (of one stream its text), and what the stages say of their
    steps."""

    def __init__(self) -> None:
        self.tokens: list[tuple[float, int]] = []
        self.text: list[int] = []
        self.steps: list[StageStepped] = []

    async def on_message(self, msg: Msg) -> None:
        """Notes the tokens of a message."""
        now_s = time.perf_counter()
        found = [item for item in unpack(msg.data) if isinstance(item, Token)]
        self.tokens += [(now_s, token.sequence) for token in found]
        self.text += [token.token for token in found]

    async def on_event(self, msg: Msg) -> None:
        """Notes a stage's steps."""
        event = ANY_EVENT.validate_json(msg.data)
        if isinstance(event, StageStepped):
            self.steps.append(event)

    def tokens_per_s(self) -> float:
        """The rate while all sequences decoded."""
        decoded = {sequence for _, sequence in self.tokens}
        first = {s: min(t for t, q in self.tokens if q == s) for s in decoded}
        last = {s: max(t for t, q in self.tokens if q == s) for s in decoded}
        start_s, end_s = max(first.values()), min(last.values())
        inside = sum(start_s < at_s <= end_s for at_s, _ in self.tokens)
        return inside / (end_s - start_s) if end_s > start_s else 0.0

    def decode_batch(self, stage: int) -> float:
        """The mean number of sequences in a stage's step, of events without prompts if there are any."""
        own = [event for event in self.steps if event.stage == stage]
        decoding = [event for event in own if event.tokens == event.batch_size] or own
        steps = sum(event.steps for event in decoding)
        return sum(event.batch_size for event in decoding) / steps if steps else 1.0

    async def has_tokens(self, count: int) -> None:
        """Waits until so many tokens have come."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.tokens) < count:  # noqa: ASYNC110  (the broker is listened to)
                await asyncio.sleep(POLL_S)


@asynccontextmanager
async def nodes(
    folder: Path, model: Path, size: dict[str, int], *, moves_cuts: bool = False
) -> AsyncIterator[Nodes]:
    """A broker, a router, and as many stage services as are started. The cut stays where the plan has it,
    unless the router `moves_cuts`."""
    async with bench_mesh(folder / "broker", [MODEL]) as mesh:
        env = {"CHOIR_INSTANCE": "router-1", "CHOIR_ROUTER__PIPELINE_REBALANCE": str(moves_cuts).lower()}
        mesh.spawn("services.router", env=env)
        yield Nodes(mesh, model, folder / "slices", size)


def memory_mb(process: psutil.Process) -> float:
    """What a process holds in memory, shared file pages included."""
    return float(process.memory_info().rss / 1e6)


__all__ = ["MODEL", "SETTLE_S", "Decoded", "Journal", "Nodes", "memory_mb", "nodes", "tokens_of"]
