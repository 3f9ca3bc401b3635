"""Two stores, as processes with folders of their own, and a client."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.mesh import eventually
from infra.testing.plugin import ServiceProcess, SpawnService
from schemas import subjects
from schemas.errors import InvalidRequest, NoRoom, UnknownModel
from schemas.nodes.model_store import HeldModels, ListHeld
from services.client.client import Choir
from services.modelstore.tests.stores import (
    JOB_DEADLINE_S,
    ask,
    bytes_read,
    failure_of,
    job_of,
    small_model,
    spawn_store,
    whole_files,
)

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some megabytes."""
    return small_model(tmp_path_factory.mktemp("model") / "little.gguf", layers=8, width=256)


@pytest_asyncio.fixture
async def choir(mesh_url: str) -> AsyncIterator[Choir]:
    """A client."""
    async with Choir(mesh_url) as client:
        yield client


@pytest_asyncio.fixture
async def stores(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> tuple[ServiceProcess, ServiceProcess]:
    """The stores `first` and `second`."""
    both = (
        spawn_store(spawn_service, "first", tmp_path / "first"),
        spawn_store(spawn_service, "second", tmp_path / "second"),
    )
    await asyncio.gather(*(store.wait_ready(connection) for store in both))
    return both


async def held_by(client: Client, store: str) -> dict[str, str]:
    """The models that a store says to hold, with the places of their first files."""
    reply = await client.request(subjects.held_models(store), ListHeld().to_bytes(), timeout=60)
    return {model.name: model.paths[0] for model in HeldModels.read(reply.data).models}


async def test_a_model_goes_from_one_store_to_the_other_and_the_last_copy_stays(
    choir: Choir,
    connection: Client,
    stores: tuple[ServiceProcess, ServiceProcess],
    model: Path,
    tmp_path: Path,
) -> None:
    first, _ = stores
    # A store gives way to whoever computes answers
    assert psutil.Process(first.pid).nice() == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    # When a file is added it is in the catalogue, with what it says of itself
    added = await job_of(choir, await ask(choir, "add", "first", path=str(model)))
    assert (added.models, added.done_bytes) == (("little",), model.stat().st_size)
    (entry,) = (await ask(choir, "show", name="little")).models
    assert (entry.model.architecture, entry.model.layers, entry.model.quantisation) == ("llama", 8, "Q8_0")
    assert entry.model.files[0].sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    # And to add it again reads none of it
    before = bytes_read(first.pid)
    await job_of(choir, await ask(choir, "add", "first", path=str(model)))
    assert bytes_read(first.pid) - before < model.stat().st_size / 2

    # Agents of its host are told where it lies, and those of another host that it does not
    held = [await held_by(connection, store) for store in ("first", "second")]
    assert held == [{"little": str(model)}, {}]

    # When the other host pulls it, it has every byte, under its final name alone
    pulled = await job_of(choir, await ask(choir, "pull", "second", name="little"))
    assert pulled.done_bytes == pulled.total_bytes == model.stat().st_size
    assert whole_files(tmp_path / "second") == {entry.model.files[0].sha256: model.read_bytes()}
    assert list((tmp_path / "second" / "parts").iterdir()) == []
    assert set(await held_by(connection, "second")) == {"little"}
    (entry,) = (await ask(choir, "list")).models
    assert [(copy.instance, copy.whole, copy.live) for copy in entry.copies] == [
        ("first", True, True),
        ("second", True, True),
    ]

    # One copy may go, the last one may not
    await ask(choir, "remove", "second", name="little")
    assert whole_files(tmp_path / "second") == {}
    assert await held_by(connection, "second") == {}
    with pytest.raises(InvalidRequest, match="the copy stays"):
        await ask(choir, "remove", "first", name="little")
    (entry,) = (await ask(choir, "list")).models
    assert [copy.instance for copy in entry.copies] == ["first"]
    # Unless the model is given up as a whole: then the file that was there before stays where it is
    await ask(choir, "remove", name="little", everywhere=True)
    assert (await ask(choir, "list")).models == ()
    assert model.is_file()


async def test_what_cannot_be_is_refused_by_name_and_leaves_nothing(
    choir: Choir, stores: tuple[ServiceProcess, ServiceProcess], model: Path, tmp_path: Path
) -> None:
    assert len(stores) == 2
    with pytest.raises(UnknownModel, match="no model 'nobody'"):
        await ask(choir, "pull", "second", name="nobody")
    with pytest.raises(InvalidRequest, match="no store is called 'attic'"):
        await ask(choir, "pull", "attic", name="nobody")
    for name in ("../../etc/passwd", "a/b", "..", "a..b", "a\\b"):
        with pytest.raises(InvalidRequest, match="name"):
            await ask(choir, "pull", "second", name=name)
        refused = await failure_of(choir, await ask(choir, "add", "first", path=str(model), name=name))
        assert (refused.code, refused.field) == ("invalid_request", "name"), name
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(model.read_bytes()[:-100_000])
    error = await failure_of(choir, await ask(choir, "add", "first", path=str(damaged)))
    assert error.code == "model_unusable" and "reaches" in error.message and "past the end" in error.message
    # A blob of Ollama that is not what its name says
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'ab' * 32}"}
    manifest = tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "little" / "latest"
    blob = tmp_path / "ollama" / "blobs" / f"sha256-{'ab' * 32}"
    for path, content in ((manifest, json.dumps({"layers": [layer]}).encode()), (blob, model.read_bytes())):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    error = await failure_of(choir, await ask(choir, "add", "first", path=str(tmp_path / "ollama")))
    assert error.code == "model_unusable" and "is damaged: its SHA-256 is" in error.message
    assert (await ask(choir, "list")).models == ()
    assert whole_files(tmp_path / "second") == {}
    # And another model under a name that is taken
    await job_of(choir, await ask(choir, "add", "first", path=str(model)))
    other = small_model(tmp_path / "other.gguf", layers=2, width=64)
    error = await failure_of(choir, await ask(choir, "add", "second", path=str(other), name="little"))
    assert (error.code, error.field) == ("invalid_request", "name") and "is another model" in error.message
    (entry,) = (await ask(choir, "list")).models
    assert entry.model.files[0].sha256 == hashlib.sha256(model.read_bytes()).hexdigest()


@pytest.mark.soak
async def test_a_copy_is_made_by_itself_when_a_host_that_held_one_is_killed(
    choir: Choir,
    connection: Client,
    stores: tuple[ServiceProcess, ServiceProcess],
    spawn_service: SpawnService,
    model: Path,
    tmp_path: Path,
) -> None:
    """Some 25 s: a lease runs out, and three looks are waited for; who is started again costs no copy."""
    third = spawn_store(spawn_service, "third", tmp_path / "third")
    await third.wait_ready(connection)
    # Given two copies of a model of which there are to be two
    await job_of(choir, await ask(choir, "add", "first", path=str(model)))
    await job_of(choir, await ask(choir, "pull", "second", name="little"))
    await ask(choir, "copies", "first", name="little", min_copies=2)
    assert whole_files(tmp_path / "third") == {}
    # When one of their hosts dies
    stores[1].kill()
    # Then the third one fetches the model, unasked, and the catalogue says so
    await eventually(lambda: whole_files(tmp_path / "third"), JOB_DEADLINE_S)
    assert list(whole_files(tmp_path / "third").values()) == [model.read_bytes()]

    async def holders() -> bool:
        (entry,) = (await ask(choir, "show", "first", name="little")).models
        return {copy.instance for copy in entry.copies if copy.whole and copy.live} == {"first", "third"}

    await eventually(holders, JOB_DEADLINE_S)


async def test_a_store_without_room_says_both_numbers(
    choir: Choir,
    connection: Client,
    stores: tuple[ServiceProcess, ServiceProcess],
    spawn_service: SpawnService,
    model: Path,
    tmp_path: Path,
) -> None:
    assert len(stores) == 2
    await job_of(choir, await ask(choir, "add", "first", path=str(model)))
    small = spawn_store(spawn_service, "small", tmp_path / "small", budget_bytes=1_500_000)
    await small.wait_ready(connection)
    error = await failure_of(choir, await ask(choir, "pull", "small", name="little"))
    assert isinstance(error, NoRoom) and error.field == "budget_bytes"
    assert f"{model.stat().st_size / 1e6:.1f} MB" in error.message and "1.5 MB" in error.message

    # And nobody wonders why there are too few copies, nor who is next
    (entry,) = (await ask(choir, "copies", "first", name="little", min_copies=3)).models
    assert entry.missing == 2
    assert [(place.instance, place.lacks) for place in entry.places] == [
        ("second", "server"),
        ("small", "disk"),
    ]
    assert entry.places[1].has_bytes == 1_500_000
