"""What goes between two hosts: no verified chunk twice, no other bytes than the catalogue says, one pull of a
model at a time, and as many copies as there are to be."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.testing.mesh import eventually, open_mesh, settled
from infra.testing.plugin import SpawnService, connect, fill_disk
from schemas import subjects
from schemas.errors import InvalidRequest, ModelUnusable, NoRoom
from schemas.nodes.lease import LoadingOffer
from schemas.nodes.model_store import FetchClaim, FileCopy, ManageStore, ModelFile, StoredModel
from schemas.replies import ErrorReply
from services.chassis.blobs.catalogue import FileTable, ModelCatalogue
from services.chassis.blobs.range_source import open_kept
from services.chassis.blobs.transfer import FRAME_BYTES, WORKERS
from services.client.client import Choir
from services.engine.model.gguf.check import check_model
from services.engine.model.slicing import slice_file, write_slice
from services.modelstore.copies import LOOKS_BEFORE_REPAIR, Copies
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.files.named_parts import NamedParts
from services.modelstore.hub import claim as claiming
from services.modelstore.hub.claim import Claim
from services.modelstore.hub.pull import HubPuller
from services.modelstore.hub.repository import HubFile
from services.modelstore.jobs.holdings import Holdings
from services.modelstore.jobs.job import Job
from services.modelstore.jobs.pulling import Puller
from services.modelstore.settings import ModelStoreSection
from services.modelstore.tests.holder import CHUNK_BYTES, Holder, verified_chunks
from services.modelstore.tests.stores import (
    JOB_DEADLINE_S,
    ask,
    failure_of,
    job_of,
    node,
    small_model,
    spawn_store,
    whole_files,
)

pytestmark = pytest.mark.long

GIVEN = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some megabytes."""
    return small_model(tmp_path_factory.mktemp("model") / "little.gguf", layers=8, width=256)


@pytest_asyncio.fixture
async def choir(mesh_url: str) -> AsyncIterator[Choir]:
    """A client."""
    async with Choir(mesh_url) as client:
        yield client


async def test_what_was_verified_before_the_store_and_the_broker_were_killed_does_not_come_again(
    own_broker: Broker, spawn_service: SpawnService, model: Path, tmp_path: Path
) -> None:
    client = await connect(own_broker.url)
    holder = Holder(client, "first", tmp_path, most=GIVEN)
    await holder.hold(model)
    folder = tmp_path / "second"
    store = spawn_store(spawn_service, "second", folder, own_broker.url)
    await store.wait_ready(client)
    # Given a pull that has come so far, and a holder that gives no more for now
    async with Choir(own_broker.url) as choir:
        await ask(choir, "pull", "second", name="little")
    await eventually(lambda: len(holder.asked) > GIVEN)
    came = {chunk for asked in holder.asked[:GIVEN] for chunk in holder.chunks(asked)}
    await eventually(lambda: verified_chunks(folder) == came)
    # When the store and the broker are killed, and are started again
    store.kill()
    holder.go_on.set()
    await settled(client)  # what the one that is dead had asked for may come now, or never
    own_broker.kill()
    await own_broker.restart()
    store = spawn_store(spawn_service, "second", folder, own_broker.url)
    # Then the store goes on by itself, and is given what is missing
    await eventually(lambda: whole_files(folder))
    assert list(whole_files(folder).values()) == [model.read_bytes()]
    later = [[*holder.chunks(asked)] for asked in holder.asked[GIVEN:]]
    missing = set(range(-(-model.stat().st_size // CHUNK_BYTES))) - came
    twice = sum(map(len, later)) - len(missing)
    assert set().union(*later) == missing
    assert twice <= WORKERS * max(map(len, later)), "only what the dead one had asked for comes twice"
    await holder.stop()
    await client.close()


async def test_a_disk_that_gets_full_in_the_midst_of_a_pull_is_said_and_the_pull_goes_on_from_there(
    choir: Choir, connection: Client, spawn_service: SpawnService, model: Path, disk: Path, tmp_path: Path
) -> None:
    holder = Holder(connection, "first", tmp_path, most=GIVEN)
    await holder.hold(model)
    store = spawn_store(spawn_service, "second", disk / "store")
    await store.wait_ready(connection)
    # Given a pull that has come so far, when somebody else takes all that is left of the disk
    begun = await ask(choir, "pull", "second", name="little")
    await eventually(lambda: len(verified_chunks(disk / "store")) == GIVEN * FRAME_BYTES // CHUNK_BYTES)
    came = verified_chunks(disk / "store")
    filler = await asyncio.to_thread(fill_disk, disk)
    holder.go_on.set()
    # Then whoever has asked hears of it, and nothing stands under its final name
    full = await failure_of(choir, begun)
    assert isinstance(full, NoRoom) and full.field == "folder" and "goes on from there" in full.message
    assert whole_files(disk / "store") == {}
    assert await failure_of(choir, await ask(choir, "pull", "second", name="little")) is not None
    assert whole_files(disk / "store") == {}
    # And with room again the pull asks for what is missing, and for nothing else
    filler.unlink()
    before = len(holder.asked)
    await job_of(choir, await ask(choir, "pull", "second", name="little"))
    assert list(whole_files(disk / "store").values()) == [model.read_bytes()]
    assert list((disk / "store" / "parts").iterdir()) == []
    assert came.isdisjoint(chunk for asked in holder.asked[before:] for chunk in holder.chunks(asked))
    await holder.stop()


async def test_of_several_holders_one_that_lies_is_left_and_two_pulls_at_one_store_are_one(
    choir: Choir, connection: Client, spawn_service: SpawnService, model: Path, tmp_path: Path
) -> None:
    holders = [
        Holder(connection, name, tmp_path, lies=name == "liar") for name in ("honest", "liar", "other")
    ]
    for holder in holders:
        await holder.hold(model)
    store = spawn_store(spawn_service, "second", tmp_path / "second")
    await store.wait_ready(connection)
    # When two clients pull the same at once
    replies = await asyncio.gather(*(ask(choir, "pull", "second", name="little") for _ in range(2)))
    jobs = [await job_of(choir, reply) for reply in replies]
    # Then both are told of the one job, and each byte of the file has come once from those that do not lie
    assert jobs[0].id == jobs[1].id and jobs[0].models == jobs[1].models == ("little",)
    assert list(whole_files(tmp_path / "second").values()) == [model.read_bytes()]
    honest, liar, other = holders
    given = [chunk for holder in (honest, other) for asked in holder.asked for chunk in holder.chunks(asked)]
    assert sorted(given) == list(range(-(-model.stat().st_size // CHUNK_BYTES)))
    assert honest.asked and other.asked and liar.asked
    assert "a holder sends other bytes" in store.log() and "holder=liar" in store.log()
    # A copy more than there are to be is not made. Of holders only those count that have a lease
    await ask(choir, "copies", "second", name="little", max_copies=1)
    third = spawn_store(spawn_service, "third", tmp_path / "third")
    await third.wait_ready(connection)
    with pytest.raises(InvalidRequest, match="at most 1 are to"):
        await ask(choir, "pull", "third", name="little")
    assert whole_files(tmp_path / "third") == {}
    await ask(choir, "copies", "second", name="little", max_copies=2)
    await job_of(choir, await ask(choir, "pull", "third", name="little"))
    # Names that would write over somebody's screen are refused, whatever client sends them
    for name in ("a\nb", "a\x1b[2Jb", "a\x00b", "a\x7fb"):
        for wanted in ({"action": "pull"}, {"action": "add", "path": str(model)}):
            order = json.dumps({**wanted, "v": 1, "store": "second", "name": name}).encode()
            reply = await connection.request(subjects.STORE, order, timeout=JOB_DEADLINE_S)
            refused = ErrorReply.read(reply.data).error
            assert (refused.code, refused.field) == ("invalid_request", "name"), (name, wanted)
    for holder in holders:
        await holder.stop()


async def test_a_store_that_lies_about_the_chunks_of_a_file_is_found_out_and_named(
    choir: Choir, connection: Client, spawn_service: SpawnService, model: Path, tmp_path: Path
) -> None:
    honest, liar = (Holder(connection, name, tmp_path) for name in ("honest", "liar"))
    store = spawn_store(spawn_service, "second", tmp_path / "second")
    await store.wait_ready(connection)
    # Given a store that has said first what the chunks of a model are, and whose bytes are as it says
    await liar.hold_other_bytes(model, tmp_path / "other.gguf")
    await honest.describe(model)
    # When it is the only one, its bytes are not taken for the model's
    error = await failure_of(choir, await ask(choir, "pull", "second", name="little"))
    assert (error.code, "liar" in error.message) == ("pull_failed", True), error.message
    assert whole_files(tmp_path / "second") == {}
    assert list((tmp_path / "second" / "parts").iterdir()) == []
    # And with another one that holds the model, the pull goes on by that one's word
    await honest.hold(model)
    third = spawn_store(spawn_service, "third", tmp_path / "third")
    await third.wait_ready(connection)
    for name in ("second", "third"):
        liar.asked.clear()
        job = await job_of(choir, await ask(choir, "pull", name, name="little"))
        assert job.done_bytes == job.total_bytes == model.stat().st_size
        assert list(whole_files(tmp_path / name).values()) == [model.read_bytes()]
    # A stage cannot tell which of the two is right, and takes neither
    with pytest.raises(ModelUnusable, match="liar"):
        await open_kept(connection, "little")
    await liar.stop()
    await liar.holdings.take_back(liar.sha256)
    _, (source,) = await open_kept(connection, "little")
    assert await asyncio.to_thread(source.read, 0, source.size) == model.read_bytes()
    await honest.stop()


async def test_a_slice_comes_from_all_holders_at_once_without_the_one_that_lies(
    connection: Client, model: Path, tmp_path: Path
) -> None:
    holders = [
        Holder(connection, name, tmp_path, lies=name == "liar") for name in ("honest", "liar", "other")
    ]
    for holder in holders:
        await holder.hold(model)
    honest, liar, other = holders
    # Given a source of which the header was read
    _, (source,) = await open_kept(connection, "little")
    header = await asyncio.to_thread(check_model, source)
    source.pin(header.data_offset)
    before = source.fetched_bytes
    for holder in holders:
        holder.asked.clear()
    # When layers are fetched, of which no tensor is as large as what is asked for at a time
    layers = range(2, 6)
    origin = await asyncio.to_thread(
        write_slice, source, layers, tmp_path / "far.gguf", source_sha256=source.sha256
    )
    # Then both that are honest were asked, and who has lied for no more than its workers had begun
    assert honest.asked and other.asked and len(liar.asked) <= 2 * WORKERS
    assert await asyncio.to_thread(slice_file, model, layers, tmp_path / "near.gguf") == origin
    near = (tmp_path / "near.gguf").read_bytes()
    assert (tmp_path / "far.gguf").read_bytes() == near
    # And hardly more came than the slice has
    assert source.fetched_bytes - before <= len(near) + 4 * CHUNK_BYTES
    for holder in holders:
        await holder.stop()


class _Hub:
    """The hub's part of the store `second`, that is to fetch a model from outside. `taken` is what would be
    pulled from another store."""

    def __init__(self, client: Client, model: Path, folder: Path) -> None:
        mesh, catalogue = open_mesh(client, "modelstore", "second"), ModelCatalogue(client)
        known = KnownFiles(folder / "second")
        self.taken: list[ModelFile] = []
        self._catalogue = catalogue
        self.puller = HubPuller(
            client, "second", ModelStoreSection(folder=folder / "second"), known,
            Holdings(catalogue, known, mesh.identity, mesh.clock), cast(Puller, self), mesh.clock,
        )  # fmt: skip
        sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
        self.file = ModelFile(name=model.name, size_bytes=model.stat().st_size, sha256=sha256)
        self._job = Job("j-2", ManageStore(action="pull", name="hf:org/little"), "second", mesh.identity.host)

    async def tables(self, file: ModelFile) -> tuple[FileTable, ...]:
        """Who holds it."""
        return await self._catalogue.tables(file.sha256)

    async def from_peers(self, _job: Job, file: ModelFile) -> None:
        """Takes note."""
        self.taken.append(file)

    def alone(self, _sha256: str) -> asyncio.Lock:
        """Nobody else is there."""
        return asyncio.Lock()

    async def pull(self) -> None:
        """Brings the one file."""
        await self.puller._file(self._job, HubFile(self.file, "https://hub.invalid/little.gguf"))

    async def claim(self) -> FetchClaim | None:
        """Who is to fetch the file."""
        return (await self.puller._claims.get(subjects.model_file_key(self.file.sha256))).value


async def test_who_may_fetch_from_a_hub_takes_what_another_has_finished_between_its_two_looks(
    connection: Client, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, hub = Holder(connection, "first", tmp_path), _Hub(connection, model, tmp_path)
    take = Claim.take

    async def take_late(claim: Claim) -> bool:
        await holder.hold(model)
        return await take(claim)

    async def fetch(_job: Job, _file: HubFile) -> None:
        pytest.fail("it comes from the hub again")

    monkeypatch.setattr(Claim, "take", take_late)
    monkeypatch.setattr(hub.puller, "_fetch", fetch)
    await hub.pull()
    assert hub.taken == [hub.file]
    assert await hub.claim() is None
    await holder.stop()


async def test_who_has_lost_its_claim_leaves_the_hub_to_the_store_that_has_it(
    connection: Client, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "RENEW_S", 0.05)
    holder, hub = Holder(connection, "first", tmp_path), _Hub(connection, model, tmp_path)
    fetches, key = asyncio.Event(), subjects.model_file_key(hub.file.sha256)
    left = asyncio.Event()

    async def fetch(_job: Job, _file: HubFile) -> None:
        fetches.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    monkeypatch.setattr(hub.puller, "_fetch", fetch)
    pulling = asyncio.create_task(hub.pull())
    await asyncio.wait_for(fetches.wait(), JOB_DEADLINE_S)
    # A claim that has run out, and that nobody has taken, is taken again
    await hub.puller._claims.delete(key)
    await eventually(hub.claim)
    # When another store has taken it
    other = FetchClaim(sha256=hub.file.sha256, instance="first")
    await hub.puller._claims.put(key, other)
    # Then the first one fetches no more, and writes nothing over the other's claim
    await asyncio.wait_for(left.wait(), JOB_DEADLINE_S)
    assert await hub.claim() == other
    # And takes the file from there
    await holder.hold(model)
    await asyncio.wait_for(pulling, JOB_DEADLINE_S)
    assert hub.taken == [hub.file] and await hub.claim() == other
    await holder.stop()


async def test_of_two_copies_that_are_removed_at_once_neither_counts_the_other(
    connection: Client, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two hosts that hold a model, both of which count the others at the same moment
    catalogue, live = ModelCatalogue(connection), {"first": "a", "second": "b"}
    holders = [Holder(connection, name, tmp_path) for name in live]
    both, count = asyncio.Barrier(2), Copies._others

    async def count_together(copies: Copies, described: StoredModel) -> list[str]:
        async with asyncio.timeout(JOB_DEADLINE_S):
            await both.wait()
        return await count(copies, described)

    monkeypatch.setattr(Copies, "_others", count_together)
    stores = []
    for holder in holders:
        await holder.hold(model)
        stores.append(
            Copies(
                holder.name, catalogue, holder.known, NamedParts(tmp_path / "named"), holder.holdings,
                lambda: live, lambda _model: None, lambda: 0, tuple,
            )
        )  # fmt: skip
    sha256 = (await catalogue.model("little")).files[0].sha256
    # When both are told to give up their copy
    removals = (store.remove("little", last=False) for store in stores)
    told = await asyncio.gather(*removals, return_exceptions=True)
    # Then at least one of them stays, and is said to be there
    assert any(isinstance(one, InvalidRequest) for one in told), told
    kept = {holder.name for holder in holders if holder.known.all}
    assert kept and set(await catalogue.holders(sha256)) == kept
    for holder in holders:
        await holder.stop()


async def test_a_copy_is_made_again_when_a_host_has_gone_for_a_while(
    connection: Client, model: Path, tmp_path: Path
) -> None:
    # Given a model that two hosts hold, and that two are to hold
    holders = [Holder(connection, name, tmp_path) for name in ("first", "second")]
    for holder in holders:
        await holder.hold(model)
    catalogue = ModelCatalogue(connection)
    described = await catalogue.model("little")
    live = {"first": "a", "second": "b", "third": "c", "fourth": "d"}
    pulls: list[tuple[str, str]] = []
    # And an agent that loads what the third holds: by lot alone the fourth would be before it
    leases = (node("agent-1", "c", loads=LoadingOffer(store="third", budget_bytes=described.size_bytes)),)

    def store(name: str, room: int) -> Copies:
        own = Holder(connection, name, tmp_path)
        return Copies(
            name, catalogue, own.known, NamedParts(tmp_path / "named"), own.holdings, lambda: live,
            lambda model: pulls.append((name, model)), lambda: room, lambda: leases,
        )  # fmt: skip

    plenty = 2 * described.size_bytes
    stores = {name: store(name, plenty) for name in live}
    await catalogue.models_bucket.put("little", described.model_copy(update={"min_copies": 2}))

    async def looks(count: int) -> None:
        for _ in range(count):
            for name in live:
                await stores[name].repair()

    await looks(LOOKS_BEFORE_REPAIR + 1)
    assert pulls == []
    # When one goes, nothing is copied for one that is only started anew
    del live["second"]
    await looks(LOOKS_BEFORE_REPAIR - 1)
    assert pulls == []
    # And then one other host makes a copy, the one that can use it
    await looks(1)
    assert pulls == [("third", "little")]
    # One without room leaves it to the next
    pulls.clear()
    stores["third"] = store("third", 0)
    await looks(2 * LOOKS_BEFORE_REPAIR)
    assert set(pulls) == {("fourth", "little")}
    # And as soon as there are enough nobody does
    sha256 = described.files[0].sha256
    copy = FileCopy(sha256=sha256, instance="fourth", host="d", at_s=0.0)
    await catalogue.copies_bucket.put(f"{sha256}.fourth", copy)
    pulls.clear()
    await looks(2 * LOOKS_BEFORE_REPAIR)
    assert pulls == []
    for holder in holders:
        await holder.stop()
