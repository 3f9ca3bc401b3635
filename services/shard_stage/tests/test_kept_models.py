"""Stages of a model that only another host has: each takes the header and its own layers, over the wire."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.broker.broker import Broker
from infra.broker.provision import provision_at
from infra.demo_models.bench_model import write_bench_model
from infra.testing.made_models.variants import split_model
from infra.testing.mesh import eventually
from infra.testing.networks import NEEDED, Networks, allowed
from infra.testing.plugin import SpawnService, connect
from schemas import subjects
from schemas.nodes.model_store import MIN_CHUNK_BYTES, ManageStore, ReadRange, StoreJob
from schemas.requests.sampling import Sampling
from services.client.client import Choir
from services.engine.model.gguf.check import check_model_file
from services.engine.model.gguf.header import FileSource, read_header
from services.shard_stage.probe.capability import _bytes_of, _layer_bytes
from services.shard_stage.tests.helpers.pipeline_mesh import (
    CONTEXT_TOKENS,
    MODEL,
    READY_DEADLINE_S,
    PipelineMesh,
)
from services.shard_stage.tests.pipeline.test_line import engine_says

pytestmark = pytest.mark.long

LAYERS = 12
ALLOWED = 1.05
"""Of the header and its layers, so much may come over the wire."""
PROMPT = "Tell me a story."
TENSORS = 40
"""In each part of a split model: three parts."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some ten megabytes."""
    return write_bench_model(tmp_path_factory.mktemp("model") / "kept.gguf", layers=LAYERS, width=512, seed=3)


async def add(choir: Choir, model: Path) -> None:
    """The one store has the model, as "kept"."""
    (job,) = (await choir.store(ManageStore(action="add", path=str(model), name="kept"))).jobs

    async def added() -> StoreJob | None:
        told = (await choir.store(ManageStore(action="jobs", job=job.id))).jobs
        return next((one for one in told if one.state == "done"), None)

    await eventually(added)


def joined_sha256(files: list[Path]) -> str:
    """Of all files, one after another."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def headers_bytes(files: list[Path]) -> int:
    """The headers of all files of a model."""
    total = 0
    for file in files:
        with FileSource(file) as source:
            total += read_header(source).data_offset
    return total


@pytest.mark.parametrize("parts", [1, pytest.param(3, marks=pytest.mark.soak)])
async def test_each_stage_fetches_its_own_layers_and_says_what_the_whole_model_says(
    parts: int, model: Path, connection: Client, mesh_url: str, spawn_service: SpawnService, tmp_path: Path
) -> None:
    # Given one host with a store that has the model, and two with nothing but an empty cache each
    files = [model] if parts == 1 else split_model(model, tmp_path / "parts.gguf", TENSORS)
    assert len(files) == parts
    folder = {"CHOIR_MODELSTORE__FOLDER": str(tmp_path / "attic")}
    store = spawn_service("modelstore", "attic", env=folder)
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, tmp_path)
    await store.wait_ready(connection)
    async with Choir(mesh_url) as choir:
        await add(choir, files[0])
    asked: Counter[str] = Counter()

    async def count(msg: Msg) -> None:
        instance = next(name for name in ("one", "two") if f".{name}." in msg.reply)
        asked[instance] += ReadRange.read(msg.data).length

    await connection.subscribe(subjects.ALL_BLOBS, cb=count)

    # When they hold its layers, one half each
    kept = {"name": MODEL, "path": "store:kept", "context_tokens": CONTEXT_TOKENS}
    for name in ("one", "two"):
        mesh.start(name, models=[kept], cache=str(tmp_path / name))
    for process in mesh.instances.values():
        await process.wait_ready(connection, READY_DEADLINE_S)
    header, headers = check_model_file(model), headers_bytes(files)
    before = Counter(asked)
    offer_bytes = headers + (2 + parts) * MIN_CHUNK_BYTES
    assert max(before.values()) < offer_bytes, "to offer a model takes its header alone"
    await mesh.place("one", "two", sha256=joined_sha256(files))

    # Then each has fetched its own layers, and hardly more
    layers, half = _layer_bytes(header, LAYERS), LAYERS // 2
    embeddings = _bytes_of(header, "token_embd.weight")
    own = {
        "one": headers + sum(layers[:half]) + embeddings,
        "two": headers + sum(layers[half:]) + (_bytes_of(header, "output.weight") or embeddings),
    }
    for name, size in own.items():
        most = ALLOWED * size + (parts - 1) * MIN_CHUNK_BYTES  # each header comes in whole chunks
        assert size <= asked[name] <= most, (name, asked[name] / size)
    # And together they are the model
    async with Choir(mesh_url) as choir:
        result = await choir.ask(PROMPT, model=MODEL, max_tokens=12)
    (whole,) = engine_says(model, [PROMPT], Sampling(max_tokens=12))
    assert result.text == whole.text


@pytest.mark.soak
@pytest.mark.skipif(not allowed(), reason=NEEDED)
async def test_a_host_in_a_network_of_its_own_takes_its_layers_over_its_cable_and_answers(
    model: Path, spawn_service: SpawnService, tmp_path: Path
) -> None:
    networks = Networks(2)
    broker = Broker(tmp_path / "broker", host="0.0.0.0", prepare=lambda url: provision_at(url, [MODEL]))
    with networks.built() as (first, second):
        async with broker:
            # Given a host that has the model in its store, and another one with nothing
            url, connection = f"nats://{networks.gate}:{broker.port}", await connect(broker.url)
            folder = {"CHOIR_MODELSTORE__FOLDER": str(tmp_path / "attic")}
            store = spawn_service(
                "modelstore", "attic", url=url, env=folder,
                command=[*first.inside, sys.executable, "-m", "services.modelstore"],
            )  # fmt: skip
            await store.wait_ready(connection, READY_DEADLINE_S)
            mesh = PipelineMesh(spawn_service, connection, broker.url, model, tmp_path)
            async with Choir(broker.url) as choir:
                await add(choir, model)
            before = second.received_bytes()
            kept = {"name": MODEL, "path": "store:kept", "context_tokens": CONTEXT_TOKENS}
            for name, network in (("one", first), ("two", second)):
                command = [*network.inside, sys.executable, "-m", "services.shard_stage"]
                mesh.start(name, url=url, command=command, models=[kept], cache=str(tmp_path / name))
            for process in mesh.instances.values():
                await process.wait_ready(connection, READY_DEADLINE_S)
            # When it is given the second half of the layers
            await mesh.place("one", "two")
            # Then these have come over its cable, and with all that a stage hears hardly more
            header = check_model_file(model)
            own = header.data_offset + sum(_layer_bytes(header, LAYERS)[LAYERS // 2 :])
            own += _bytes_of(header, "output.weight") or _bytes_of(header, "token_embd.weight")
            came = second.received_bytes() - before
            assert own <= came <= ALLOWED * own, came / own
            (result,) = await mesh.ask_all([PROMPT], Sampling(max_tokens=12), "networks")
            for process in (*mesh.instances.values(), store):
                await process.stop()
            await connection.close()
    (whole,) = engine_says(model, [PROMPT], Sampling(max_tokens=12))
    assert result.text == whole.text
