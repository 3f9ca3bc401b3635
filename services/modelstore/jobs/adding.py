"""Adds models that lie on this host: each file is read once at most, and stays where it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import InvalidRequest, ModelUnusable
from schemas.nodes.model_store import FileChunks, ModelFile, StoredModel
from services.chassis.logs import get_logger
from services.chassis.nats.clock import BrokerClock
from services.modelstore.catalogue.gguf_facts import Facts, facts_of
from services.modelstore.catalogue.sources import DIGEST, Found, checked_name, found_at
from services.modelstore.files.hashing import hashed
from services.modelstore.files.joined_hash import JoinedHash
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.jobs.holdings import Holdings
from services.modelstore.jobs.job import Job

log = get_logger("modelstore.adding")


async def add(job: Job, known: KnownFiles, holdings: Holdings, clock: BrokerClock) -> None:
    """Adds what lies at the path of a job. Of several models one that cannot be used is passed over and named
    at the end; raises ModelUnusable then, or InvalidRequest."""
    request = job.request
    found = await asyncio.to_thread(found_at, Path(request.path or ""))
    if request.name is not None:
        if len(found) > 1:
            names = ", ".join(one.name for one in found[:10])
            raise InvalidRequest(f"name: there are {len(found)} models at that path: {names}", field="name")
        checked_name(request.name)
    for one in found:
        job.expect(sum(path.stat().st_size for _, path in one.files if path.exists()))
    failures: list[str] = []
    for one in found:
        try:
            model = await _added(job, one, request.name or one.name, known, holdings, clock)
        except (ModelUnusable, InvalidRequest) as error:
            if len(found) == 1:
                raise
            failures.append(f"{one.name}: {error.message}")
            log.error("a model cannot be added", model=one.name, why=error.message)
        else:
            job.models = (*job.models, model.name)
    if failures:
        raise ModelUnusable(
            f"{len(failures)} of {len(found)} models could not be added. {'; '.join(failures[:5])}",
            field="path",
        )


async def _added(
    job: Job, found: Found, name: str, known: KnownFiles, holdings: Holdings, clock: BrokerClock
) -> StoredModel:
    checked_name(name)
    paths = [path.resolve() for _, path in found.files]
    facts = await asyncio.to_thread(facts_of, paths)
    joined_sha256 = await _joined_known(paths, known, holdings)
    joined = JoinedHash() if len(paths) > 1 and joined_sha256 is None else None
    chunks = [await asyncio.to_thread(_identity, path, known, job, joined) for path in paths]
    if joined is not None:
        joined_sha256 = joined.hexdigest()
    for path, one in zip(paths, chunks, strict=True):
        await asyncio.to_thread(known.put, path, one, own=False)
        await holdings.announce(one)
    return await holdings.describe(described(name, found, facts, chunks, clock.now(), joined_sha256))


async def _joined_known(paths: Sequence[Path], known: KnownFiles, holdings: Holdings) -> str | None:
    """The SHA-256 of several files together, if all of them were read before and the catalogue says it."""
    if len(paths) == 1:
        return None
    there = [await asyncio.to_thread(known.same_as, path) for path in paths]
    files = [one.sha256 for one in there if one is not None]
    return await holdings.joined_sha256(files) if len(files) == len(paths) else None


def _identity(path: Path, known: KnownFiles, job: Job, joined: JoinedHash | None) -> FileChunks:
    there = known.same_as(path)
    if there is not None:
        if joined is None:
            job.found(there.size_bytes)
        else:
            joined.read(path, job.advance)
        return there
    chunks = hashed(path, job.advance, joined)
    named = DIGEST.fullmatch(path.name)
    if named is not None and named["hex"] != chunks.sha256:
        raise ModelUnusable(f"{path} is damaged: its SHA-256 is {chunks.sha256}", field="path")
    return chunks


def described(
    name: str,
    found: Found,
    facts: Facts,
    chunks: Sequence[FileChunks],
    at_s: float,
    joined_sha256: str | None = None,
) -> StoredModel:
    """The entry of a model; one in several files has the SHA-256 of all together."""
    files = tuple(
        ModelFile(name=file_name, size_bytes=one.size_bytes, sha256=one.sha256)
        for (file_name, _), one in zip(found.files, chunks, strict=True)
    )
    return StoredModel(
        name=name,
        files=files,
        architecture=facts.architecture,
        layers=facts.layers,
        parameters=facts.parameters,
        context_tokens=facts.context_tokens,
        quantisation=facts.quantisation,
        licence=facts.licence,
        licence_text=found.licence_text or facts.licence_text,
        origin=found.origin,
        added_at_s=at_s,
        joined_sha256=joined_sha256,
    )
