"""`pull` and `delete` of Ollama's own library, over stores that fetch from a hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService
from infra.testing.stand_ins.hub_server import HubServer, hub_server
from schemas.nodes.model_store import ManageStore, StoreEntry
from schemas.requests.keys import ApiKey, ManageKeys, digest_of, new_secret
from services.client.client import Choir
from services.gateway.requests.hub_names import hub_name
from services.gateway.tests.serving import serving
from services.modelstore.tests.stores import small_model, spawn_store

pytestmark = pytest.mark.long

REPOSITORY = "org/little-GGUF"
LITTLE = f"hf.co/{REPOSITORY}:Q8_0"
KEPT = "little-Q8_0"
AGENT = {
    "name": "attic",
    "threads": 1,
    "on_demand": {"store": "first", "slots": 1, "context_tokens": 128, "memory_bytes": 400_000_000},
}
READY_DEADLINE_S = 180.0
Stores = tuple[Choir, ollama.AsyncClient]


@pytest.fixture(scope="module")
def mesh_models() -> tuple[str, ...]:
    """The model that is pulled has its queue."""
    return (KEPT,)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """A hub with one model of some megabytes."""
    content = small_model(tmp_path / "little.gguf", layers=8, width=256).read_bytes()
    with hub_server(REPOSITORY, {"little-Q8_0.gguf": content, "README.md": b"#"}) as server:
        yield server


@pytest_asyncio.fixture
async def mesh(
    connection: Client, mesh_url: str, hub: HubServer, spawn_service: SpawnService, tmp_path: Path
) -> AsyncIterator[Stores]:
    """A mesh of a router and two stores that know the hub, and Ollama's client of a gateway."""
    services = [
        spawn_service("router", "router-1"),
        *(
            spawn_store(spawn_service, name, tmp_path / name, hub=hub.url, patience_s=3)
            for name in ("first", "second")
        ),
    ]
    await asyncio.gather(*(service.wait_ready(connection) for service in services))
    async with Choir(mesh_url) as choir, serving(mesh_url) as url:

        async def both() -> bool:
            return len([node for node in await choir.nodes() if node.service == "modelstore"]) == 2

        await eventually(both)
        async with ollama.AsyncClient(host=url) as client:
            yield choir, client


async def kept(choir: Choir) -> list[StoreEntry]:
    """The models of the stores."""
    return list((await choir.store(ManageStore())).models)


async def test_a_pull_tells_how_far_it_is_goes_on_when_its_client_hangs_up_and_what_came_is_asked_at_once(
    mesh: Stores, hub: HubServer, spawn_service: SpawnService, connection: Client
) -> None:
    # Given a hub that stops in the middle, and an agent that loads what a store has
    choir, client = mesh
    await spawn_service("agent", "attic", agent=AGENT).wait_ready(connection)
    hub.stops_at = len(hub.files["little-Q8_0.gguf"]) // 2
    first: Any = await client.pull(LITTLE, stream=True)
    told = [await anext(first)]
    while not told[-1].completed:
        told.append(await anext(first))
    assert told[0].status == "pulling manifest"
    assert told[-1].digest is not None and told[-1].status == f"pulling {told[-1].digest[7:19]}"
    assert 0 < told[-1].completed < (told[-1].total or 0) == len(hub.files["little-Q8_0.gguf"])
    (job,) = (await choir.store(ManageStore(action="jobs"))).jobs

    # When another client pulls the same, and the first one hangs up
    second = await client.pull(LITTLE, stream=True)
    assert (await anext(second)).status == "pulling manifest"
    await first.aclose()
    hub.goes_on.set()
    rest = [each async for each in second]

    # Then it is one pull, of each byte once, and it is done
    assert rest[-1].status == "success"
    completed = [each.completed for each in rest if each.completed is not None]
    assert completed == sorted(completed) and completed[-1] == told[-1].total
    (done,) = (await choir.store(ManageStore(action="jobs"))).jobs
    assert (done.id, done.state) == (job.id, "done")
    assert [start for name, start in hub.asked if name.endswith(".gguf")] == [0]
    (entry,) = await kept(choir)
    assert entry.model.origin.place == REPOSITORY

    # And it is asked at once, as `ollama run` does, by its name of the hub and by that of the mesh
    for name in (LITTLE, KEPT):
        said = await client.generate(name, "Hello", options={"num_predict": 2})
        assert said.done and said.model == name
        await client.generate(name, keep_alive=0)
        assert (await client.show(name)).modelinfo
    with pytest.raises(ollama.ResponseError, match="not found"):
        await client.show(f"hf.co/{REPOSITORY}:Q4_0")
    assert (await client.pull(LITTLE)).status == "success"


async def test_a_copy_is_given_up_if_another_one_is_left_and_the_last_one_with_a_word_of_its_own(
    mesh: Stores,
) -> None:
    choir, client = mesh
    assert (await client.pull(LITTLE)).status == "success"
    (entry,) = await kept(choir)
    name = entry.model.name
    for named in (name, LITTLE):
        with pytest.raises(ollama.ResponseError, match="the copy stays") as last:
            await client.delete(named)
        assert last.value.status_code == 400

    (holder,) = (copy.instance for copy in entry.copies)
    other = next(each for each in ("first", "second") if each != holder)
    await choir.store(ManageStore(action="pull", name=name, store=other))

    async def holders() -> list[str]:
        return [copy.instance for (entry,) in [await kept(choir)] for copy in entry.copies if copy.whole]

    async def is_on(count: int) -> bool:
        return len(await holders()) == count

    await eventually(lambda: is_on(2))
    assert (await client.delete(name)).status == "success"
    await eventually(lambda: is_on(1))
    response = await client._client.request("DELETE", "/api/delete", json={"model": name, "everywhere": True})
    assert response.status_code == 200
    assert await kept(choir) == []
    with pytest.raises(ollama.ResponseError) as gone:
        await client.delete(name)
    assert gone.value.status_code == 404


async def test_a_key_that_opens_nothing_but_to_operate_is_enough(mesh: Stores) -> None:
    choir, client = mesh
    secret = new_secret("k-operates")
    key = ApiKey(
        id="k-operates", digest=digest_of(secret), ending=secret[-4:], created_at_s=0, scopes=("operate",)
    )
    await choir.keys(ManageKeys(action="add", key=key))
    url, shown = str(client._client.base_url), {"Authorization": f"Bearer {secret}"}
    async with ollama.AsyncClient(host=url, headers=shown) as operator:

        async def pulled() -> bool:
            try:
                pulled: ollama.ProgressResponse = await operator.pull(LITTLE)
                return pulled.status == "success"
            except ollama.ResponseError as error:
                assert error.status_code == 401  # the gateway has not heard of the key yet
                return False

        await eventually(pulled)


async def test_what_cannot_be_pulled_is_an_error_with_the_reason(mesh: Stores, hub: HubServer) -> None:
    _, client = mesh
    # neither served, nor kept, nor of a hub
    with pytest.raises(ollama.ResponseError, match=r"`ollama list`.*hf\.co/ORGANISATION") as unknown:
        await client.pull("llama3.2")
    assert unknown.value.status_code == 501
    # the hub has no such quantisation: said in the stream, and with a status where there is none
    missing = f"hf.co/{REPOSITORY}:Q2_K"
    with pytest.raises(ollama.ResponseError, match="say which with :QUANTISATION"):
        [each async for each in await client.pull(missing, stream=True)]
    with pytest.raises(ollama.ResponseError, match="say which with :QUANTISATION") as refused:
        await client.pull(missing)
    assert refused.value.status_code == 400
    hub.fault = "html"
    with pytest.raises(ollama.ResponseError) as failed:
        await client.pull(LITTLE)
    assert failed.value.status_code == 502


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ("hf.co/org/repo:Q4_K_M", "hf:org/repo:Q4_K_M"),
        ("huggingface.co/org/repo:latest", "hf:org/repo"),
        ("https://hf.co/org/repo", "hf:org/repo"),
        ("hf:org/repo", "hf:org/repo"),
        ("llama3.2:3b", None),
        ("org/model", None),
        ("hf.co/org", None),
        ("hf.co/a/b/c", None),
    ],
)
async def test_models_of_a_hub_are_named_as_other_clients_do(named: str, wanted: Any) -> None:
    assert hub_name(named) == wanted
