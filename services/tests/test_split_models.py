"""Models in several files: from the cache of Hugging Face or from a hub to another store, to an agent there
that loads them on demand, and by slices to stages."""

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
from schemas.errors import ModelUnusable
from schemas.nodes.model_store import HeldModel, HeldModels, ListHeld
from schemas.requests.sampling import Sampling
from services.agent.service import Agent
from services.agent.settings import AgentSection
from services.agent.tests.workers.worker_mesh import result_of
from services.chassis.blobs.catalogue import ModelCatalogue
from services.chassis.blobs.range_source import open_kept
from services.client.client import Choir
from services.engine import check_model_file
from services.engine.model.slicing import slice_file, write_slice
from services.modelstore.tests.holder import CHUNK_BYTES, Holder
from services.modelstore.tests.stores import ask, job_of, small_model, spawn_store
from services.shard_stage.probe.capability import open_kept_source
from services.shard_stage.probe.kept_model import KeptModel
from services.shard_stage.probe.slice_cache import SliceCache
from services.shard_stage.settings import StageModelSection

pytestmark = pytest.mark.long

REPOSITORY = "org/parts-GGUF"
CACHED, HUBS = "cached", "parts-Q8_0"
"""Two models in parts: one in the cache of Hugging Face, and one at a hub."""
TENSORS = 40
"""In each part of a third one: three parts."""


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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = {
        name: hashlib.sha256(b"".join(part.read_bytes() for part in files)).hexdigest()
        for name, files in parts.items()
    }
    # No agent reads for its hash what a store has read
    monkeypatch.setattr("services.agent.file_hash.sha256_of", lambda _path: pytest.fail("it is read again"))
    catalogue = ModelCatalogue(connection)
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
            assert held[CACHED].joined_sha256 == together[CACHED]
            # And an entry of a store that said nothing of all files together
            entry = await catalogue.model(CACHED)
            told_less = entry.model_copy(update={"joined_sha256": None})
            await catalogue.models_bucket.put(subjects.stored_model_key(CACHED), told_less)
            # When another host pulls it, and one from a hub
            for name in (CACHED, f"hf:{REPOSITORY}:Q8_0"):
                await job_of(choir, await ask(choir, "pull", "second", name=name))
            # Then the catalogue says the hash of all files of each
            for name in parts:
                assert (await catalogue.model(name)).joined_sha256 == together[name]
            # And an agent there answers with both, and says which files they are of
            await eventually(
                lambda: {one.name for one in agent.load().models if not one.problem} == set(parts)
            )
            await settled(connection)
            for number, name in enumerate(parts):
                await enqueue(
                    open_mesh(connection), generate(f"r{number}", name, sampling=Sampling(max_tokens=3))
                )
                result = await result_of(connection, f"r{number}")
                assert result.error is None, result.error
                assert result.answers[0].model_sha256 == together[name]
            # And when it is given up there nothing of it is left, and nothing else is gone
            for name in (CACHED, HUBS):
                await ask(choir, "remove", name=name, everywhere=True)
            for name in ("first", "second"):
                assert [path for path in (tmp_path / name / "named").glob("**/*")] == []
            assert await held_by(connection, "second") == {}
            assert list((tmp_path / "second" / "blobs").iterdir()) == []
            assert len(list(cache.glob("models--*/blobs/*"))) == len(parts[CACHED])


async def test_a_slice_of_a_split_model_comes_by_ranges_of_its_parts_and_wrong_parts_are_refused(
    connection: Client, tmp_path: Path
) -> None:
    # Given a model in parts, which three hosts hold
    model = small_model(tmp_path / "whole.gguf", layers=12, width=256)
    files = split_model(model, tmp_path / "parts.gguf", TENSORS)
    holders = [
        Holder(connection, name, tmp_path, lies=name == "liar") for name in ("honest", "liar", "other")
    ]
    for holder in holders:
        await holder.hold(files[0])
    honest, _, other = holders
    catalogue = ModelCatalogue(connection)
    together = hashlib.sha256(b"".join(file.read_bytes() for file in files))
    stored = await catalogue.model("parts")
    assert stored.whole_sha256 == stored.joined_sha256 == together.hexdigest()
    kept = KeptModel(*await open_kept(connection, "parts"))
    header = await asyncio.to_thread(kept.checked)
    assert {one.name for one in header.tensors} == {one.name for one in check_model_file(model).tensors}
    # When layers are fetched that lie in two of the parts
    before, layers = kept.fetched_bytes, range(4, 8)
    far, near = tmp_path / "far.gguf", tmp_path / "near.gguf"
    origin = await asyncio.to_thread(write_slice, kept.source, layers, far, source_sha256=kept.sha256)
    # Then they are those of the files, from both that are honest, and hardly more has come
    assert await asyncio.to_thread(slice_file, files[0], layers, near) == origin
    assert far.read_bytes() == near.read_bytes()
    assert honest.asked and other.asked
    assert kept.fetched_bytes - before <= near.stat().st_size + 6 * CHUNK_BYTES
    # And parts that are not those of one model, in their order, are refused
    first, second, third = stored.files

    async def entry(**fields: object) -> KeptModel:
        wrong = stored.model_copy(update={"name": "wrong", **fields})
        await catalogue.models_bucket.put(subjects.stored_model_key("wrong"), wrong)
        return KeptModel(*await open_kept(connection, "wrong"))

    section = StageModelSection(name="wrong", path=Path("store:wrong"))
    slices = SliceCache(tmp_path / "cache")
    for wrong, said in (((first, third, second), "split.no"), ((first, second), "split.count")):
        kept = await entry(files=wrong)
        with pytest.raises(ModelUnusable, match=said) as refused:
            await asyncio.to_thread(open_kept_source, section, kept, slices, 1)
        assert refused.value.field == "path"
    with pytest.raises(ModelUnusable, match="choir pull wrong --store") as refused:
        await entry(joined_sha256=None)
    assert refused.value.field == "path"
    for holder in holders:
        await holder.stop()
