"""Pulls a model from a hub: of all stores that want a file one fetches it, and the others take it from it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import ModelUnusable, PullFailed
from schemas.nodes.model_store import FetchClaim, ModelFile, Origin, StoredModel
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.nats.clock import BrokerClock
from services.modelstore.catalogue.gguf_facts import facts_of
from services.modelstore.catalogue.sources import Found
from services.modelstore.files.joined_hash import JoinedHash
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.files.partial_file import PartialFile
from services.modelstore.hub.claim import Claim
from services.modelstore.hub.download import Download
from services.modelstore.hub.licence import fetched_licence
from services.modelstore.hub.repository import HubFile, HubModel, hub_model
from services.modelstore.jobs.adding import described
from services.modelstore.jobs.holdings import Holdings
from services.modelstore.jobs.job import Job
from services.modelstore.jobs.pulling import PARTS, Puller
from services.modelstore.settings import ModelStoreSection

LOOK_S = 0.5


class HubPuller:
    """Brings models of a hub into the store of this host."""

    def __init__(
        self,
        client: Client,
        instance: str,
        settings: ModelStoreSection,
        known: KnownFiles,
        holdings: Holdings,
        puller: Puller,
        clock: BrokerClock,
    ) -> None:
        self._instance = instance
        self._settings = settings
        self._known = known
        self._holdings = holdings
        self._puller = puller
        self._clock = clock
        self._claims = Bucket(client, subjects.MODEL_FETCHES_BUCKET, messages(FetchClaim))

    async def pull(self, job: Job) -> None:
        """Makes a copy of the model of a hub that a job names. Raises InvalidRequest, NoRoom, PullFailed,
        ModelUnusable."""
        model = await asyncio.to_thread(hub_model, self._settings, job.request.name or "")
        await self._puller.allowed(model.name)
        files = [one.file for one in model.files]
        job.sha256 = files[0].sha256
        job.expect(sum(file.size_bytes for file in files))
        self._puller.check_room(files, model.name)
        joined_sha256 = None
        if len(files) > 1:
            joined_sha256 = await self._holdings.joined_sha256(file.sha256 for file in files)
            job.joined = JoinedHash() if joined_sha256 is None else None
        for one in model.files:
            await self._file(job, one)
        if job.joined is not None:
            joined_sha256 = job.joined.hexdigest()
        job.models = ((await self._described(model, joined_sha256)).name,)

    async def _described(self, model: HubModel, joined_sha256: str | None) -> StoredModel:
        here = [self._known.get(one.file.sha256) for one in model.files]
        whole = [known for known in here if known is not None]
        try:
            facts = await asyncio.to_thread(facts_of, [known.path for known in whole])
        except ModelUnusable:
            for known in whole:
                await self._holdings.take_back(known.chunks.sha256)
                await asyncio.to_thread(self._known.forget, known.chunks.sha256)
            raise
        files = tuple((one.file.name, known.path) for one, known in zip(model.files, whole, strict=True))
        origin = Origin(kind="hugging_face", place=model.repository, revision=model.revision)
        text = None
        if facts.licence_text is None and model.licence_url is not None:
            text = await asyncio.to_thread(fetched_licence, self._settings, model.licence_url)
        found = Found(model.name, files, origin, text)
        facts = replace(facts, licence=facts.licence or model.licence)
        chunks = [known.chunks for known in whole]
        return await self._holdings.describe(
            described(model.name, found, facts, chunks, self._clock.now(), joined_sha256)
        )

    async def _file(self, job: Job, one: HubFile) -> None:
        """From another store if one has all of it; else from the hub, unless another store is at it."""
        sha256 = one.file.sha256
        while True:
            if await self._held(one.file):
                try:
                    await self._puller.from_peers(job, one.file)
                    return
                except PullFailed:
                    if await self._held(one.file):
                        raise
                    continue  # who has lied, or holds it no more, is no reason to do without the hub
            async with self._puller.alone(sha256):
                claim = Claim(self._claims, sha256, self._instance)
                if await claim.take():
                    if await self._fetched(job, one, claim):
                        return
                    continue
            await asyncio.sleep(LOOK_S)

    async def _held(self, file: ModelFile) -> bool:
        """Whether the file is here, or another store that was not found to lie has all of it."""
        if self._known.get(file.sha256) is not None:
            return True
        try:
            return any(table.holders for table in await self._puller.tables(file))
        except PullFailed:
            return False

    async def _fetch(self, job: Job, one: HubFile) -> None:
        file = one.file
        part = await asyncio.to_thread(
            PartialFile, self._puller.folder / PARTS, file.sha256, file.size_bytes, job.joined
        )
        try:
            await asyncio.to_thread(part.resume, None, job.found)
            download = Download(self._settings, one, part, job.advance)
            running = asyncio.create_task(asyncio.to_thread(download.run))
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                download.end()
                with contextlib.suppress(Exception):
                    await running
                raise
            await self._finished(part, file)
        finally:
            part.close()

    async def _finished(self, part: PartialFile, file: ModelFile) -> None:
        chunks = await asyncio.to_thread(part.check)
        final = self._puller.final(file.sha256)
        await asyncio.to_thread(part.finish, final)
        await asyncio.to_thread(self._known.put, final, chunks, own=True)
        await self._holdings.announce(chunks)

    async def _fetched(self, job: Job, one: HubFile, claim: Claim) -> bool:
        """Fetches the file for as long as the claim is this store's, and gives that back at the end. False
        if the file is to be looked for again: another store has it by now, or has the claim."""
        keeping = asyncio.create_task(claim.keep(), name=f"the claim of {one.file.sha256}")
        fetching = asyncio.create_task(self._fetch_missing(job, one), name=f"fetches {one.file.sha256}")
        try:
            await asyncio.wait((keeping, fetching), return_when=asyncio.FIRST_COMPLETED)
            has_come = await fetching if fetching.done() else await keeping
        finally:
            for task in (fetching, keeping):
                task.cancel()
            await asyncio.gather(fetching, keeping, return_exceptions=True)
        await claim.give_back()  # a store that is stopped goes on after its start, and keeps the claim
        return has_come

    async def _fetch_missing(self, job: Job, one: HubFile) -> bool:
        if await self._held(one.file):  # another may have finished between the two looks
            return False
        await self._fetch(job, one)
        return True
