"""Streams, consumers and buckets as if they had just been created: what nobody has touched stays as it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig

from infra.broker.provision import provision
from infra.broker.streams.definitions import bucket_config, consumer_config, stream_config, version_of
from schemas.broker import catalog

LIST_DEADLINE_S = 60.0
PLACEHOLDER = "placeholder"

Found = dict[str, Any]
"""A stream or a consumer, as the broker tells of it."""

_as_created: dict[tuple[str, tuple[str, ...]], dict[str, tuple[Found, dict[str, Found]]]] = {}
"""The configuration of each stream, and of its consumers, after they were created: by broker and models."""


async def make_new(nc: Client, models: Iterable[str]) -> None:
    """Makes every stream, consumer and bucket of a mesh that serves `models` new."""
    assert nc.connected_url is not None
    models, js, streams = tuple(models), nc.jetstream(timeout=LIST_DEADLINE_S), await _streams(nc)
    known = _as_created.setdefault((nc.connected_url.netloc, models), {})
    used = [name for name, stream in streams.items() if not await _is_new(nc, stream, known.get(name))]
    async with _folder_that_stays(js, [stream for name, stream in streams.items() if name not in used]):
        for name in used:
            await js.delete_stream(name)
        if known:
            await _create(js, {*used, *(known.keys() - streams.keys())}, models)
            return
        await provision(nc, models)
    for name, stream in (await _streams(nc)).items():
        known[name] = (stream["config"], await _consumers(nc, stream))


@asynccontextmanager
async def _folder_that_stays(js: JetStreamContext, left: Iterable[Found]) -> AsyncIterator[None]:
    """Keeps a stream on the disk meanwhile, if none is `left` there: nats-server removes the folder of all
    streams with the last one, even while it makes the next one in it, and then cannot make that."""
    if any(stream["config"]["storage"] == StorageType.FILE for stream in left):
        yield
        return
    await js.add_stream(name=PLACEHOLDER, subjects=[PLACEHOLDER], storage=StorageType.FILE)
    try:
        yield
    finally:
        await js.delete_stream(PLACEHOLDER)


async def _create(js: JetStreamContext, names: Collection[str], models: Iterable[str]) -> None:
    """Those of the catalog's streams and buckets, with their consumers."""
    wanted = (*map(stream_config, catalog.STREAMS), *map(bucket_config, catalog.BUCKETS))
    for stream in wanted:
        if stream.name in names:
            await js.add_stream(stream)
    for spec in catalog.consumers(models):
        if spec.stream in names:
            await js.add_consumer(spec.stream, consumer_config(spec))


async def _is_new(nc: Client, stream: Found, created: tuple[Found, dict[str, Found]] | None) -> bool:
    """Whether it has never held a message, and nobody has changed it, or its consumers, or made others."""
    if stream["state"]["last_seq"]:
        return False
    if created is not None:
        return (stream["config"], await _consumers(nc, stream)) == created
    config = StreamConfig.from_response(stream["config"])
    return not stream["state"]["consumer_count"] and version_of(config) <= catalog.VERSION


async def _streams(nc: Client) -> dict[str, Found]:
    return {one["config"]["name"]: one for one in await _listed(nc, "STREAM.LIST", "streams")}


async def _consumers(nc: Client, stream: Found) -> dict[str, Found]:
    """The configurations of a stream's consumers."""
    if not stream["state"]["consumer_count"]:
        return {}
    subject = f"CONSUMER.LIST.{stream['config']['name']}"
    return {one["name"]: one["config"] for one in await _listed(nc, subject, "consumers")}


async def _listed(nc: Client, subject: str, what: str) -> list[Found]:
    found: list[Found] = []
    while True:
        request = json.dumps({"offset": len(found)}).encode()
        reply = await nc.request(f"$JS.API.{subject}", request, timeout=LIST_DEADLINE_S)
        page = json.loads(reply.data)
        found += page[what] or ()
        if not page[what] or len(found) >= page["total"]:
            return found
