"""Pulls from a hub: the hub's own library, against a server that speaks its protocol, well and badly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.mesh import eventually
from infra.testing.plugin import ServiceProcess, SpawnService, fill_disk
from infra.testing.stand_ins.hub_server import HubServer, hub_server
from schemas.errors import InvalidRequest, NoRoom
from services.client.client import Choir
from services.modelstore.tests.holder import CHUNK_BYTES, Holder, verified_chunks
from services.modelstore.tests.stores import (
    ask,
    failure_of,
    job_of,
    small_model,
    spawn_store,
    whole_files,
)

pytestmark = pytest.mark.long

REPOSITORY = "org/little-GGUF"
LICENCE = "Apache License\n\nCopyright [yyyy] [name of copyright owner]\n"
TOKEN = "hf_secret_of_the_operator"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of some megabytes."""
    path = small_model(tmp_path_factory.mktemp("model") / "little.gguf", layers=8, width=256)
    return path.read_bytes()


@pytest.fixture
def hub(content: bytes) -> Iterator[HubServer]:
    """A hub with one model in two quantisations, and a page."""
    files = {
        "little-Q8_0.gguf": content,
        "little-Q4_K_M.gguf": content[:200_000],
        "README.md": b"#",
        "LICENSE": LICENCE.encode(),
    }
    with hub_server(REPOSITORY, files) as server:
        yield server


@pytest_asyncio.fixture
async def stores(
    connection: Client, hub: HubServer, spawn_service: SpawnService, tmp_path: Path
) -> list[ServiceProcess]:
    """The stores `first` and `second`, which know the hub."""
    both = [
        spawn_store(spawn_service, name, tmp_path / name, hub=hub.url, token=TOKEN, patience_s=60)
        for name in ("first", "second")
    ]
    await asyncio.gather(*(store.wait_ready(connection) for store in both))
    return both


@pytest_asyncio.fixture
async def choir(mesh_url: str) -> AsyncIterator[Choir]:
    """A client."""
    async with Choir(mesh_url) as client:
        yield client


async def test_of_two_hosts_that_pull_one_fetches_each_byte_and_the_other_takes_it_from_there(
    choir: Choir, stores: list[ServiceProcess], hub: HubServer, content: bytes, tmp_path: Path
) -> None:
    # Given a hub that goes away in the middle
    hub.fault = "vanishes"
    hub.pace_s = 0.02
    # When both hosts pull the model at once, one of them twice, by two names
    wanted = (("first", "Q8_0"), ("first", "little-Q8_0"), ("second", "Q8_0"))
    begun = [await ask(choir, "pull", store, name=f"hf:{REPOSITORY}:{which}") for store, which in wanted]
    jobs = [await job_of(choir, reply) for reply in begun]
    # Then both have it, and the hub has sent no byte twice but those of the chunk that it broke off in
    assert [job.models for job in jobs] == [("little-Q8_0",)] * 3
    for store in ("first", "second"):
        assert list(whole_files(tmp_path / store).values()) == [content]
    assert sum(end - start for _, start, end in hub.served) < len(content) + 2 * 65_536
    (entry,) = (await ask(choir, "show", name="little-Q8_0")).models
    assert (entry.model.origin.kind, entry.model.origin.place) == ("hugging_face", REPOSITORY)
    # With the licence that lies beside it there, which is kept for good
    assert (entry.model.licence, entry.model.licence_text) == ("apache-2.0", LICENCE)
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert not any(TOKEN in store.log() for store in stores)


async def test_a_hub_that_lies_is_refused_and_nothing_has_a_final_name(
    choir: Choir,
    connection: Client,
    stores: list[ServiceProcess],
    hub: HubServer,
    content: bytes,
    tmp_path: Path,
) -> None:
    assert stores
    for fault, said in (
        ("html", "no bytes of"),
        ("elsewhere", "169.254.169.254"),
        ("more", "sends more"),
        ("other", "SHA-256"),
        ("page_for_metadata", "nothing of use"),
    ):
        hub.fault = fault  # type: ignore[assignment]
        error = await failure_of(choir, await ask(choir, "pull", "first", name=f"hf:{REPOSITORY}:Q8_0"))
        assert (error.code, said in error.message) == ("pull_failed", True), (fault, error.message)
        assert whole_files(tmp_path / "first") == {}, fault
    hub.fault = ""
    # What is no model is not kept, though its bytes are what the hub says
    error = await failure_of(choir, await ask(choir, "pull", "first", name=f"hf:{REPOSITORY}:Q4_K_M"))
    assert error.code == "model_unusable"
    assert whole_files(tmp_path / "first") == {}
    for name, said in ((f"hf:{REPOSITORY}", "several"), ("hf:org/../etc", "is not hf:")):
        refused = await failure_of(choir, await ask(choir, "pull", "first", name=name))
        assert isinstance(refused, InvalidRequest) and said in refused.message
    assert (await ask(choir, "list")).models == ()
    # A store that lies about the file's chunks is no reason to do without the hub
    liar = Holder(connection, "liar", tmp_path)
    (tmp_path / "little.gguf").write_bytes(content)
    await liar.hold_other_bytes(tmp_path / "little.gguf", tmp_path / "other.gguf")
    await job_of(choir, await ask(choir, "pull", "first", name=f"hf:{REPOSITORY}:Q8_0"))
    assert liar.asked and list(whole_files(tmp_path / "first").values()) == [content]
    await liar.stop()


async def test_the_token_does_not_go_where_a_hub_leads_to(
    choir: Choir,
    connection: Client,
    hub: HubServer,
    spawn_service: SpawnService,
    content: bytes,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "third"
    store = spawn_store(spawn_service, "third", folder, hub=hub.url, token=TOKEN, redirects='["localhost"]')
    await store.wait_ready(connection)
    # Given a hub that has its files at another host, as the real one has
    with hub_server(REPOSITORY, hub.files) as elsewhere:
        hub.fault, hub.leads_to = "leads_on", f"http://localhost:{elsewhere.server_port}"
        await job_of(choir, await ask(choir, "pull", "third", name=f"hf:{REPOSITORY}:Q8_0"))
        # Then the file comes from there, and the token has gone to the hub alone
        assert list(whole_files(folder).values()) == [content]
        assert (hub.tokens, hub.served) == ({f"Bearer {TOKEN}"}, [])
        assert elsewhere.served and elsewhere.tokens == {""}
    # And files that a hub calls as nothing may be called are refused
    for name in ("a\x1b[2Jb-Q8_0.gguf", "a..b-Q8_0.gguf", "a\\b-Q8_0.gguf"):
        hub.files = {name: content}
        error = await failure_of(choir, await ask(choir, "pull", "third", name=f"hf:{REPOSITORY}:Q8_0"))
        assert (error.code, error.field) == ("invalid_request", "name"), (name, error.message)


async def test_a_disk_that_gets_full_while_a_hub_sends_keeps_what_has_come(
    choir: Choir,
    connection: Client,
    hub: HubServer,
    spawn_service: SpawnService,
    content: bytes,
    disk: Path,
) -> None:
    store = spawn_store(spawn_service, "third", disk / "store", hub=hub.url)
    await store.wait_ready(connection)
    hub.stops_at = len(content) // 2
    begun = await ask(choir, "pull", "third", name=f"hf:{REPOSITORY}:Q8_0")
    await eventually(lambda: verified_chunks(disk / "store"))
    filler = await asyncio.to_thread(fill_disk, disk)
    hub.goes_on.set()
    full = await failure_of(choir, begun)
    assert isinstance(full, NoRoom) and full.field == "folder" and whole_files(disk / "store") == {}
    came = verified_chunks(disk / "store")
    filler.unlink()
    hub.stops_at = None
    await job_of(choir, await ask(choir, "pull", "third", name=f"hf:{REPOSITORY}:Q8_0"))
    assert list(whole_files(disk / "store").values()) == [content]
    asked = [start for name, start in hub.asked if name == "little-Q8_0.gguf"]
    assert asked == [0, len(came) * CHUNK_BYTES]
