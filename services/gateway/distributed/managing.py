"""External workers and pipelines: listed, added, taken away. The mesh itself says what cannot be."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.errors import InvalidRequest
from schemas.message import Message
from schemas.nodes.workers import ManageWorkers, Worker, WorkerStatus
from schemas.pipelines.plan import Shard
from services.chassis.plain_words import first_fault
from services.gateway.distributed.replies import json_reply
from services.gateway.http.body import checked, read_json, takes
from services.gateway.http.context import GatewayContext

LOOK_S = 0.25
TRIED_WITHIN_S = 10.0
CREATED = 201

MessageT = TypeVar("MessageT", bound=Message)


class NewWorker(Worker):
    """A worker, and whether it may take the place of one with its id, and share a model that agents serve."""

    model_config = ConfigDict(extra="ignore")

    replace: bool = False
    share: bool = False

    @property
    def worker(self) -> Worker:
        """The worker alone."""
        return Worker.model_validate(self.model_dump(exclude={"replace", "share"}))


class NewPipeline(Shard):
    """A model that is to run over nodes."""

    model_config = ConfigDict(extra="ignore")


class Managing:
    """Changes the mesh."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    def routes(self) -> tuple[Route, ...]:
        """Where it is served."""
        workers, pipelines = "/api/distributed/workers", "/api/distributed/pipelines"
        return (
            Route(workers, self.workers, methods=["GET"]),
            Route(workers, self.add_worker, methods=["POST"]),
            Route(f"{workers}/{{id}}", self.remove_worker, methods=["DELETE"]),
            Route(f"{workers}/{{id}}/cordon", self.cordon, methods=["POST"]),
            Route(f"{workers}/{{id}}/uncordon", self.uncordon, methods=["POST"]),
            Route(pipelines, self.pipelines, methods=["GET"]),
            Route(pipelines, self.add_pipeline, methods=["POST"]),
            Route(f"{pipelines}/{{model:path}}", self.remove_pipeline, methods=["DELETE"]),
        )

    async def workers(self, _request: Request) -> Response:
        """All external workers, and how they do."""
        return json_reply(
            {"workers": [_document(one) for one in await self._context.mesh.workers(ManageWorkers())]}
        )

    @takes(NewWorker)
    async def add_worker(self, request: Request) -> Response:
        """Registers a worker. `tried` says whether an agent has asked its server by then; if so `state` and
        `problem` tell what came of it."""
        body = checked(await read_json(request, self._context.settings), NewWorker)
        status, tried = await self.register(body)
        return json_reply({**_document(status), "tried": tried}, CREATED)

    async def register(self, new: NewWorker) -> tuple[WorkerStatus, bool]:
        """A worker, registered, and whether an agent has asked its server by then. Raises InvalidRequest."""
        worker = new.worker
        await self._manage(action="add", worker=worker, replace=new.replace, share=new.share)
        return await self._tried(worker.id)

    async def _tried(self, worker_id: str) -> tuple[WorkerStatus, bool]:
        """A worker as soon as an agent has tried its server, or as it is when nobody has in time."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + TRIED_WITHIN_S
        while True:
            found = await self._context.mesh.workers(ManageWorkers())
            told = next((one for one in found if one.worker.id == worker_id), None)
            if told is None:
                raise InvalidRequest(f"id: the worker {worker_id} was taken away meanwhile", field="id")
            tried = told.problem is not None or (
                told.state is not None and told.state.checked_at_s is not None
            )
            if tried or loop.time() >= until_s:
                return told, tried
            await asyncio.sleep(LOOK_S)

    async def remove_worker(self, request: Request) -> Response:
        """Takes a worker away; what it works on it finishes."""
        return json_reply({"workers": await self._manage(action="remove", id=request.path_params["id"])})

    async def cordon(self, request: Request) -> Response:
        """Gives a worker nothing new."""
        return json_reply({"workers": await self._manage(action="cordon", id=request.path_params["id"])})

    async def uncordon(self, request: Request) -> Response:
        """Gives a worker work again."""
        return json_reply({"workers": await self._manage(action="uncordon", id=request.path_params["id"])})

    async def _manage(self, **fields: Any) -> list[dict[str, Any]]:
        request = _valid(ManageWorkers, fields)
        return [_document(one) for one in await self._context.mesh.workers(request)]

    async def pipelines(self, _request: Request) -> Response:
        """All models that run in stages over nodes."""
        found = await self._context.mesh.pipelines()
        return json_reply({"pipelines": [one.model_dump(mode="json", exclude_none=True) for one in found]})

    @takes(NewPipeline)
    async def add_pipeline(self, request: Request) -> Response:
        """Has a model placed over nodes."""
        body = checked(await read_json(request, self._context.settings), NewPipeline)
        return await self._shard(Shard.model_validate(body.model_dump()), CREATED)

    async def remove_pipeline(self, request: Request) -> Response:
        """Ends a model's pipeline."""
        return await self._shard(_valid(Shard, {"model": request.path_params["model"], "remove": True}))

    async def _shard(self, request: Shard, status: int = 200) -> Response:
        reply = await self._context.mesh.shard(request)
        return json_reply(reply.model_dump(mode="json", exclude_none=True), status)


def _document(one: WorkerStatus) -> dict[str, Any]:
    return one.model_dump(mode="json", exclude_none=True)


def _valid(model: type[MessageT], fields: dict[str, Any]) -> MessageT:
    """A request of these fields. InvalidRequest names the first that is wrong."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        field, what = first_fault(error)
        raise InvalidRequest(f"{field}: {what}", field=field) from error
