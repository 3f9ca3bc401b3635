"""A pipeline of stage services on a real broker: instances in processes of their own, and a plan for them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing import ServiceProcess, SpawnService
from schemas import subjects
from schemas.nodes import NodeLease
from schemas.pipelines import PipelinePlan, Shard, StagePlan
from schemas.replies import Result
from schemas.sampling import Sampling
from schemas.stage_wire import Token, unpack
from services.chassis.tests.mesh import eventually
from services.cli.client import Choir
from services.engine.cuts import even_layers
from services.engine.gguf_check import check_model_file

MODEL = "alpha"
SLOTS, CONTEXT_TOKENS = 8, 256
READY_DEADLINE_S = 60.0


@cache
def sha256_of(path: Path) -> str:
    """The checksum of a model."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class PipelineMesh:
    """A router, some stage services that all offer one model, and the client that asks it."""

    def __init__(
        self, spawn: SpawnService, connection: Client, url: str, model: Path, cache: Path, number: int = 1
    ) -> None:
        self._spawn = spawn
        self.connection = connection
        self.url = url
        self.model = model
        self._cache = cache
        self._number = number
        self.instances: dict[str, ServiceProcess] = {}
        self.router = spawn("router", "router-1", url=url)

    def start(self, name: str, **options: Any) -> ServiceProcess:
        """One more stage service."""
        offer = {"name": MODEL, "path": str(self.model), "context_tokens": CONTEXT_TOKENS}
        section = {"name": name, "models": [offer], "cache": str(self._cache), "threads": 1, **options}
        env = {"CHOIR_STAGE": json.dumps(section)}
        self.instances[name] = self._spawn("shard_stage", name, url=self.url, env=env)
        return self.instances[name]

    async def start_all(self, *names: str) -> None:
        """Starts services and waits until they have made their offers."""
        for process in [self.start(name) for name in names]:
            await process.wait_ready(self.connection, READY_DEADLINE_S)

    def plan(self, instances: Sequence[str], **options: Any) -> PipelinePlan:
        """A plan with slices as even as can be."""
        header = check_model_file(self.model)
        architecture = header.text("general.architecture") or ""
        layers = even_layers(header, len(instances))
        stages = [
            StagePlan(instance=name, host="here", first_layer=r.start, end_layer=r.stop, predicted_ms=1)
            for name, r in zip(instances, layers, strict=True)
        ]
        fields: dict[str, Any] = {
            "model": MODEL,
            "number": self._number,
            "epoch": 1,
            "sha256": sha256_of(self.model),
            "architecture": architecture,
            "layers": layers[-1].stop,
            "width": header.integer(f"{architecture}.embedding_length"),
            "slots": SLOTS,
            "context_tokens": CONTEXT_TOKENS,
            "dtype": "f32",
            "partition": "adaptive",
            "stages": stages,
            "predicted_ms": 1.0,
            "wanted": Shard(model=MODEL, stages=len(instances)),
            "made_by": "test",
            "made_at_s": time.time(),
            "why": "a test",
        }
        return PipelinePlan.model_validate(fields | options)

    async def place(self, *instances: str, **options: Any) -> None:
        """Writes the plan, and waits until the model can be asked."""
        bucket = await self.connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
        await bucket.put(subjects.pipeline_key(MODEL), self.plan(instances, **options).to_bytes())
        await self.serving(instances[0])

    async def now(self) -> PipelinePlan:
        """The plan as it is now."""
        bucket = await self.connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
        entry = await bucket.get(subjects.pipeline_key(MODEL))
        return PipelinePlan.model_validate_json(entry.value or b"")

    async def lease(self, instance: str) -> NodeLease | None:
        """The lease of an instance, None if it has none."""
        async with Choir(self.url) as client:
            nodes = await client.nodes()
        return next((lease for lease in nodes if lease.instance == instance), None)

    async def lease_gone(self, instance: str) -> None:
        """Waits until an instance's lease has run out."""

        async def gone() -> bool:
            return await self.lease(instance) is None

        await eventually(gone, READY_DEADLINE_S)

    async def idle(self, instance: str) -> NodeLease:
        """Waits until an instance says that it holds no stage; its lease."""

        async def idle() -> NodeLease | None:
            lease = await self.lease(instance)
            free = lease is not None and lease.stage is not None and lease.stage.held is None
            return lease if free else None

        return await eventually(idle, READY_DEADLINE_S)

    async def serving(self, instance: str) -> None:
        """Waits until an instance says that it serves the model, and the router knows it."""

        async def served() -> bool:
            lease = await self.lease(instance)
            return lease is not None and bool(lease.models)

        await eventually(served, READY_DEADLINE_S)

    async def epoch_after(self, epoch: int) -> PipelinePlan:
        """Waits until the plan has a higher epoch."""

        async def later() -> PipelinePlan | None:
            plan = await self.now()
            return plan if plan.epoch > epoch else None

        return await eventually(later, READY_DEADLINE_S)

    async def ask(self, question: str, sampling: Sampling, request_id: str, **options: Any) -> Result:
        """A request to the model, and its result."""
        async with Choir(self.url) as client:
            result: Result = await client.ask(
                question, model=MODEL, request_id=request_id, **sampling.model_dump(), **options
            )
            return result

    async def ask_all(self, questions: Sequence[str], sampling: Sampling, name: str) -> list[Result]:
        """All questions at once; the results in their order."""
        asks = [self.ask(question, sampling, f"{name}-{n}") for n, question in enumerate(questions)]
        return list(await asyncio.gather(*asks))

    async def speaking(self, sequences: int) -> None:
        """Waits until so many sequences have said something, as the journal of the pipeline has it."""
        said: set[int] = set()
        enough = asyncio.Event()

        async def on_message(msg: Msg) -> None:
            said.update(item.sequence for item in unpack(msg.data) if isinstance(item, Token))
            if len(said) >= sequences:
                enough.set()

        subject = subjects.stage(self._number, 0)
        subscription = await self.connection.subscribe(subject, cb=on_message)
        await asyncio.wait_for(enough.wait(), READY_DEADLINE_S)
        await subscription.unsubscribe()
