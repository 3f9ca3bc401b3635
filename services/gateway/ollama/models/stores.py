"""Models of the stores, as Ollama's clients name them: pulled, followed to the end, and given up."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from schemas.errors import (
    InvalidRequest,
    MeshUnreachable,
    NotPermitted,
    NotReady,
    UnknownModel,
    error_from_body,
)
from schemas.nodes.lease import NodeLease
from schemas.nodes.model_store import ManageStore, StoreEntry, StoreJob
from services.client.client import Choir
from services.client.request_builder import build
from services.gateway.requests.ensembles import without_tag
from services.gateway.requests.hub_names import hub_name, is_meant

STORE_SERVICE = "modelstore"
LOOK_S = 0.5
PATIENCE_S = 120.0
"""A store that is being started anew takes up what it had begun."""
TAKEN_UP_S = 30.0
"""So long a pull waits for agents that load models of the store: who pulls a model asks it next."""
OVER = ("done", "failed")

Progress = dict[str, Any]


class Stores:
    """The stores of the mesh, asked in the name of whose request is being answered."""

    def __init__(self, mesh: Callable[[], Choir]) -> None:
        self._mesh = mesh

    async def find(self, name: str) -> StoreEntry | None:
        """The model that is kept under a name, or that came from the hub under it; None if none is kept.

        Raises MeshUnreachable.
        """
        if not await self.live():
            return None
        hub = hub_name(name)
        if hub is not None:
            kept = (await self._mesh().store(ManageStore())).models
            found = [entry for entry in kept if _is_from(entry, hub)]
            return found[0] if len(found) == 1 else None
        try:
            request = build(ManageStore, {"action": "show", "name": without_tag(name)})
            return (await self._mesh().store(request)).models[0]
        except (UnknownModel, InvalidRequest):
            return None

    async def live(self) -> tuple[str, ...]:
        """The stores that are there now, that of this gateway's host first."""
        try:
            nodes = await self._mesh().nodes()
        except NotPermitted:  # a key that may operate, and not observe
            stores = await self._that_answer()
        else:
            stores = [(node.host, node.instance) for node in nodes if node.service == STORE_SERVICE]
        here = socket.gethostname()
        return tuple(instance for host, instance in sorted(stores, key=lambda one: (one[0] != here, one[1])))

    async def _that_answer(self) -> list[tuple[str, str]]:
        try:
            spaces = (await self._mesh().store(ManageStore(action="jobs"))).spaces
        except MeshUnreachable:
            return []
        return [(space.host, space.instance) for space in spaces]

    async def pull(self, name: str) -> AsyncGenerator[Progress, None]:
        """How far a pull is, until it is done, and agents that load models of its store tell of what came.
        Whoever asks for one that is under way joins that one.

        Who reads no further ends nothing: the store goes on. Raises the error with which it ends.
        """
        job = await self._begun(name)
        yield {"status": "pulling manifest"}
        silent_s = 0.0
        while True:
            if job.sha256 is not None:
                yield _progress(job, job.sha256)
            if job.problem is not None:
                raise error_from_body(job.problem)
            if job.state in OVER:
                break
            await asyncio.sleep(LOOK_S)
            told = (await self._mesh().store(ManageStore(action="jobs", job=job.id))).jobs
            silent_s = 0.0 if told else silent_s + LOOK_S
            if silent_s > PATIENCE_S:
                raise MeshUnreachable(f"the store {job.instance} has not answered for {PATIENCE_S:g} s")
            job = told[0] if told else job
        for status in ("verifying sha256 digest", "writing manifest"):
            yield {"status": status}
        end_s = time.monotonic() + TAKEN_UP_S
        while not await self._taken_up(job) and time.monotonic() < end_s:
            yield {"status": "waiting for an agent that loads it"}
            await asyncio.sleep(LOOK_S)

    async def _taken_up(self, job: StoreJob) -> bool:
        """Whether each agent that loads models of a store tells of what a pull has brought there. True where
        there is none, and for who may not know."""
        try:
            nodes = await self._mesh().nodes()
        except NotPermitted:
            return True
        return all(_tells_of(node, name) for node in nodes for name in job.models if _loads(node, job, name))

    async def _begun(self, name: str) -> StoreJob:
        jobs = (await self._mesh().store(ManageStore(action="jobs"))).jobs
        same = [job for job in jobs if job.kind == "pull" and job.model == name and job.state not in OVER]
        if same:
            return same[0]
        store = next(iter(await self.live()), None)  # if it has just gone any other one takes the pull
        request = build(ManageStore, {"action": "pull", "name": name, "store": store})
        return (await self._mesh().store(request)).jobs[0]

    async def remove(self, entry: StoreEntry, *, everywhere: bool) -> None:
        """Gives up the copy of this gateway's host, or of one other store if it has none there; with
        `everywhere` all of them, and the model.

        InvalidRequest if as many as there are to be would not be left.
        """
        name = entry.model.name
        fields: dict[str, Any] = {"action": "remove", "name": name}
        if everywhere:
            fields["everywhere"] = True
        else:
            holders = [copy.instance for copy in entry.copies if copy.whole and copy.live]
            fields["store"] = _first_of(await self.live(), holders, name)
        await self._mesh().store(build(ManageStore, fields))


def _first_of(live: Sequence[str], holders: Sequence[str], name: str) -> str:
    found = next((instance for instance in live if instance in holders), None)
    if found is None:
        raise InvalidRequest(
            f"model: no store that is there now holds all of {name}: "
            '`{"model": ..., "everywhere": true}`, or `choir model rm --everywhere`, gives it up',
            field="model",
        )
    return found


def _is_from(entry: StoreEntry, hub: str) -> bool:
    origin = entry.model.origin
    return origin.kind == "hugging_face" and is_meant(hub, origin.place, entry.model.files[0].name)


def _loads(node: NodeLease, job: StoreJob, name: str) -> bool:
    """Whether an agent loads that model of the store that has pulled it."""
    offer = node.loads
    return offer is not None and offer.store == job.instance and (not offer.models or name in offer.models)


def _tells_of(node: NodeLease, name: str) -> bool:
    """Whether an agent can be asked a model, or says why not."""
    told = [model for model in node.models if model.name == name]
    return any(model.problem is None or model.problem.code != NotReady.code for model in told)


def _progress(job: StoreJob, sha256: str) -> Progress:
    """A line as Ollama writes it; `completed` counts what is verified."""
    return {
        "status": f"pulling {sha256[:12]}",
        "digest": f"sha256:{sha256}",
        "total": job.total_bytes,
        "completed": job.done_bytes,
    }
