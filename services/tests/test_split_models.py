"""Models in several files: from the cache of Hugging Face or from a hub to another store, and to an agent
there that loads them on demand."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.broker.streams.definitions import consumer_config
from infra.testing.made_models.variants import split_model
from infra.testing.mesh import enqueue, eventually, generate, open_mesh, settled
from infra.testing.plugin import SpawnService
from infra.testing.stand_ins.hub_server import hub_server
from schemas import subjects
from schemas.broker.catalog import model_consumers
from schemas.nodes.model_store import HeldModel, HeldModels, ListHeld
from schemas.requests.sampling import Sampling
from services.agent.service import Agent
from services.agent.settings import AgentSection
from services.agent.tests.workers.worker_mesh import result_of
from services.client.client import Choir
from services.engine import check_model_file
from services.modelstore.tests.stores import ask, job_of, small_model, spawn_store

pytestmark = pytest.mark.long

REPOSITORY = "org/parts-GGUF"
CACHED, HUBS = "cached", "parts-Q8_0"
"""Two models in parts: one in the cache of Hugging Face, and one at a hub."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The files of both, by the name of the model."""
    folder = tmp_path_factory.mktemp("split")
    made = {
        name: split_model(
            small_model(folder / "whole.gguf", layers=2, width=64, seed=seed), folder / f"{name}.gguf"
        )
        for seed, name in enumerate((CACHED, HUBS))
    }
    assert all(len(paths) > 1 for paths in made.values())
    return made


def in_cache(folder: Path, parts: list[Path]) -> Path:
    """A folder as the hub's library keeps what it has fetched: files by their hashes, and links to them."""
    repository = folder / "models--org--cached-GGUF"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "0123"
    for one in (blobs, snapshot):
        one.mkdir(parents=True)
    for part in parts:
        blob = blobs / hashlib.sha256(part.read_bytes()).hexdigest()
        blob.write_bytes(part.read_bytes())
        (snapshot / part.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    return folder


async def held_by(client: Client, store: str) -> dict[str, HeldModel]:
    """The models that a store says to hold."""
    reply = await client.request(subjects.held_models(store), ListHeld().to_bytes(), timeout=180)
    return {model.name: model for model in HeldModels.read(reply.data).models}


@pytest_asyncio.fixture
async def agent(connection: Client) -> AsyncIterator[Agent]:
    """One that loads what the store `second` holds."""
    for name in (CACHED, HUBS):
        for spec in model_consumers(name):
            await connection.jetstream().add_consumer(subjects.COMMANDS_STREAM, consumer_config(spec))
    section = {"store": "second", "slots": 1, "context_tokens": 128, "memory_bytes": 500_000_000}
    agent = Agent(AgentSection.model_validate({"name": "singer", "threads": 1, "on_demand": section}))
    await agent.start(open_mesh(connection, "agent", "agent-1"))
    yield agent
    await agent.stop()


async def test_a_model_in_parts_is_loaded_where_it_was_pulled_from_a_store_or_a_hub(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    parts: dict[str, list[Path]],
    agent: Agent,
    tmp_path: Path,
) -> None:
    with hub_server(REPOSITORY, {part.name: part.read_bytes() for part in parts[HUBS]}) as hub:
        stores = [
            spawn_store(spawn_service, name, tmp_path / name, hub=hub.url) for name in ("first", "second")
        ]
        await asyncio.gather(*(store.wait_ready(connection) for store in stores))
        async with Choir(mesh_url) as choir:
            # Given a model in parts that lies in the cache of Hugging Face, and can be opened from there
            cache = in_cache(tmp_path / "cache", parts[CACHED])
            await job_of(choir, await ask(choir, "add", "first", path=str(cache)))
            held = await held_by(connection, "first")
            check_model_file(Path(held[CACHED].paths[0]))
            # When another host pulls it, and one from a hub
            for name in (CACHED, f"hf:{REPOSITORY}:Q8_0"):
                await job_of(choir, await ask(choir, "pull", "second", name=name))
            # Then an agent there answers with both, and says which files they are of
            await eventually(
                lambda: {one.name for one in agent.load().models if not one.problem} == set(parts)
            )
            await settled(connection)
            for number, (name, files) in enumerate(parts.items()):
                await enqueue(
                    open_mesh(connection), generate(f"r{number}", name, sampling=Sampling(max_tokens=3))
                )
                result = await result_of(connection, f"r{number}")
                assert result.error is None, result.error
                together = hashlib.sha256(b"".join(part.read_bytes() for part in files)).hexdigest()
                assert result.answers[0].model_sha256 == together
            # And when it is given up there nothing of it is left, and nothing else is gone
            for name in (CACHED, HUBS):
                await ask(choir, "remove", name=name, everywhere=True)
            for name in ("first", "second"):
                assert [path for path in (tmp_path / name / "named").glob("**/*")] == []
            assert await held_by(connection, "second") == {}
            assert list((tmp_path / "second" / "blobs").iterdir()) == []
            assert len(list(cache.glob("models--*/blobs/*"))) == len(parts[CACHED])
