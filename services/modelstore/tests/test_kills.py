"""Stores and the broker are killed at random while two stores pull from a hub: every file is whole in the
end, and what a store has of it the hub is not asked for again."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.testing.mesh import eventually
from infra.testing.plugin import ServiceProcess, SpawnService, connect
from infra.testing.stand_ins.hub_server import PIECE_BYTES, HubServer, hub_server
from schemas.errors import ChoirError
from schemas.nodes.model_store import StoreReply
from services.client.client import Choir
from services.modelstore.tests.holder import CHUNK_BYTES, verified_chunks
from services.modelstore.tests.stores import JOB_DEADLINE_S, ask, small_model, spawn_store

pytestmark = pytest.mark.long

REPOSITORY = "org/many-GGUF"
STORES = ("first", "second")
PACE_S = 0.01
PATIENCE_S = 60


class Pulls:
    """Two stores that pull one model after another from a hub, and what is killed meanwhile."""

    def __init__(
        self, broker: Broker, client: Client, spawn: SpawnService, hub: HubServer, folder: Path, seed: int
    ) -> None:
        self._broker = broker
        self._client = client
        self._hub = hub
        self._folder = folder
        self._chance = random.Random(seed)
        self.killed: list[str] = []

        def start(name: str) -> ServiceProcess:
            return spawn_store(spawn, name, folder / name, broker.url, hub=hub.url, patience_s=PATIENCE_S)

        self._start: Callable[[str], ServiceProcess] = start
        self._stores: dict[str, ServiceProcess] = {}

    async def begin(self) -> None:
        """Both stores are there."""
        self._stores = {name: self._start(name) for name in STORES}
        for store in self._stores.values():
            await store.wait_ready(self._client)

    async def pull(self, file: str) -> None:
        """Both pull a file, somebody is killed in the midst of it, and in the end both have it."""
        content = self._hub.files[file]
        name = f"hf:{REPOSITORY}:{file}"
        async with Choir(self._broker.url) as choir:
            for store in STORES:
                await _begun(choir, store, name)
        pieces = len(content) // PIECE_BYTES
        sent = self._chance.randrange(1, pieces - 1)
        await eventually(lambda: sum(one[0] == file for one in self._hub.served) >= sent)
        asked_before, verified = await self._kill(self._chance.choice((*STORES, "broker")))
        places = [self._folder / store / "blobs" for store in STORES]
        await eventually(
            lambda: all(any(path.read_bytes() == content for path in place.glob("*")) for place in places),
            JOB_DEADLINE_S,
        )
        again = [start for name, start in self._hub.asked[asked_before:] if name == file]
        # Who goes on begins behind what was verified; the death of another makes nobody ask again
        went_on_at = again if verified is None else [start // CHUNK_BYTES for start in again]
        assert went_on_at == ([] if verified is None else [len(verified)]), (self.killed[-1], again)

    async def _kill(self, victim: str) -> tuple[int, set[int] | None]:
        """And starts it again. How often the hub was asked before; and which chunks of the file the victim
        had verified, None if it did not fetch it."""
        self.killed.append(victim)
        if victim == "broker":
            asked = len(self._hub.asked)
            self._broker.kill()
            await self._broker.restart()
            return asked, None
        self._stores[victim].kill()
        fetches = any((self._folder / victim / "parts").glob("*.part"))
        asked, verified = len(self._hub.asked), verified_chunks(self._folder / victim)
        self._stores[victim] = self._start(victim)
        return asked, verified if fetches else None


async def _begun(choir: Choir, store: str, name: str) -> StoreReply:
    """A store that is only just there again is asked once more."""

    async def attempt() -> StoreReply | None:
        try:
            return await ask(choir, "pull", store, name=name)
        except ChoirError:
            return None

    return await eventually(attempt, JOB_DEADLINE_S)


async def pulls_under_kills(
    count: int, broker: Broker, spawn: SpawnService, folder: Path, seed: int
) -> Pulls:
    """So many pulls of a model each. Asserts of each that both stores have it, and that nothing of it came
    twice."""
    files = {
        f"m{number}.gguf": small_model(
            folder / f"m{number}.gguf", layers=4, width=256, seed=number
        ).read_bytes()
        for number in range(count)
    }
    client = await connect(broker.url)
    with hub_server(REPOSITORY, files) as hub:
        hub.pace_s = PACE_S
        pulls = Pulls(broker, client, spawn, hub, folder, seed)
        await pulls.begin()
        for file in files:
            await pulls.pull(file)
    await client.close()
    return pulls


async def test_what_is_pulled_under_kills_is_whole_and_comes_once_from_the_hub(
    own_broker: Broker, spawn_service: SpawnService, tmp_path: Path, fault_seed: int
) -> None:
    await pulls_under_kills(3, own_broker, spawn_service, tmp_path, fault_seed)


@pytest.mark.soak
async def test_twenty_pulls_under_kills_are_whole_and_come_once_from_the_hub(
    own_broker: Broker, spawn_service: SpawnService, tmp_path: Path, fault_seed: int
) -> None:
    pulls = await pulls_under_kills(20, own_broker, spawn_service, tmp_path, fault_seed)
    assert {*STORES, "broker"} == set(pulls.killed)
