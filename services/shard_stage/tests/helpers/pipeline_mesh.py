"""A pipeline of stage services on a real broker: instances in processes of their own, and a plan for them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.demo_models.checksums import sha256_of
from infra.testing.mesh import eventually
from infra.testing.plugin import ServiceProcess, SpawnService
from schemas import subjects
from schemas.errors import MeshUnreachable
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan, Shard, StagePlan
from schemas.pipelines.stage_wire import Token, unpack
from schemas.replies import Result
from schemas.requests.sampling import Sampling
from services.client.client import Choir
from services.engine.model.cuts import even_layers
from services.engine.model.gguf.check import check_model_file

MODEL = "alpha"
SLOTS, CONTEXT_TOKENS = 8, 256
READY_DEADLINE_S = 180.0


hash_of = cache(sha256_of)


class PipelineMesh:
    """A router, some stage services that all offer one model, and the client that asks it."""

    def __init__(
        self,
        spawn: SpawnService,
        connection: Client,
        url: str,
        models: Path | Mapping[str, Path],
        cache: Path,
        number: int = 1,
        context_tokens: int = CONTEXT_TOKENS,
        router: Mapping[str, object] | None = None,
    ) -> None:
        """`models` by their names; a single one is MODEL. `router` are settings of the router, which moves no
        cuts unless told to."""
        self._context_tokens = context_tokens
        self._spawn = spawn
        self.connection = connection
        self.url = url
        self._models = {MODEL: models} if isinstance(models, Path) else dict(models)
        self._cache = cache
        self._number = number
        self.instances: dict[str, ServiceProcess] = {}
        settings = {"pipeline_rebalance": False, **(router or {})}
        env = {f"CHOIR_ROUTER__{name.upper()}": json.dumps(value) for name, value in settings.items()}
        self.router = spawn("router", "router-1", url=url, env=env)

    def start(
        self, name: str, url: str | None = None, command: Sequence[str] | None = None, **options: Any
    ) -> ServiceProcess:
        """One more stage service, which reaches the broker at `url`."""
        offers = [
            {"name": model, "path": str(path), "context_tokens": self._context_tokens}
            for model, path in self._models.items()
        ]
        section = {"name": name, "models": offers, "cache": str(self._cache), "threads": 1, **options}
        env = {"CHOIR_STAGE": json.dumps(section)}
        self.instances[name] = self._spawn("shard_stage", name, url=url or self.url, env=env, command=command)
        return self.instances[name]

    async def start_all(self, *names: str) -> None:
        """Starts services and waits until they have made their offers."""
        for process in [self.start(name) for name in names]:
            await process.wait_ready(self.connection, READY_DEADLINE_S)

    def plan(
        self, instances: Sequence[str], model: str = MODEL, ends: Sequence[int] = (), **options: Any
    ) -> PipelinePlan:
        """A plan with slices as even as can be, or that end at `ends`. Its nodes are assigned: the router
        leaves it as it is when a node joins, whatever was measured of their speed."""
        path = self._models[model]
        header = check_model_file(path)
        architecture = header.text("general.architecture") or ""
        layers = even_layers(header, len(instances))
        if ends:
            layers = tuple(range(start, end) for start, end in pairwise((0, *ends)))
        stages = [
            StagePlan(instance=name, host="here", first_layer=r.start, end_layer=r.stop, predicted_ms=1)
            for name, r in zip(instances, layers, strict=True)
        ]
        fields: dict[str, Any] = {
            "model": model,
            "number": self._number,
            "epoch": 1,
            "sha256": hash_of(path),
            "architecture": architecture,
            "layers": layers[-1].stop,
            "width": header.integer(f"{architecture}.embedding_length"),
            "slots": SLOTS,
            "context_tokens": self._context_tokens,
            "dtype": "f32",
            "partition": "adaptive",
            "stages": stages,
            "predicted_ms": 1.0,
            "wanted": Shard(model=model, assign=tuple(instances)),
            "made_by": "test",
            "made_at_s": time.time(),
            "why": "a test",
        }
        return PipelinePlan.model_validate(fields | options)

    async def place(self, *instances: str, model: str = MODEL, **options: Any) -> None:
        """Writes the plan, and waits until the model can be asked."""
        await self.write(model, self.plan(instances, model, **options).to_bytes())
        await self.serving(instances[0], model)

    async def write(self, model: str, plan: bytes) -> None:
        """Puts a plan where plans lie, whatever it is."""
        bucket = await self.connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
        await bucket.put(subjects.pipeline_key(model), plan)

    async def remove(self, *instances: str, model: str) -> None:
        """Ends a model's pipeline, and waits until its instances are free."""
        bucket = await self.connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
        await bucket.delete(subjects.pipeline_key(model))
        for instance in instances:
            await self.idle(instance)

    async def now(self) -> PipelinePlan:
        """The plan as it is now."""
        bucket = await self.connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
        entry = await bucket.get(subjects.pipeline_key(MODEL))
        return PipelinePlan.model_validate_json(entry.value or b"")

    async def lease(self, instance: str) -> NodeLease | None:
        """The lease of an instance, None if it has none."""

        async def told() -> tuple[NodeLease, ...]:
            """By a router that may stand still for a while, as on a busy host."""
            try:
                async with Choir(self.url) as client:
                    return await client.nodes()
            except MeshUnreachable:
                return ()

        nodes = await eventually(told, READY_DEADLINE_S)
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

    async def serving(self, instance: str, model: str = MODEL) -> None:
        """Waits until an instance says that it serves the model, and the router knows it."""

        async def served() -> bool:
            lease = await self.lease(instance)
            return lease is not None and model in {served.name for served in lease.models}

        await eventually(served, READY_DEADLINE_S)

    async def ask(
        self, question: str, sampling: Sampling, request_id: str, model: str = MODEL, **options: Any
    ) -> Result:
        """A request to the model, and its result."""
        async with Choir(self.url) as client:
            result: Result = await client.ask(
                question, model=model, request_id=request_id, **sampling.model_dump(), **options
            )
            return result

    async def ask_all(
        self, questions: Sequence[str], sampling: Sampling, name: str, model: str = MODEL
    ) -> list[Result]:
        """All questions at once; the results in their order."""
        asks = [self.ask(question, sampling, f"{name}-{n}", model) for n, question in enumerate(questions)]
        return list(await asyncio.gather(*asks))

    async def decoding(self, sequences: int) -> None:
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
