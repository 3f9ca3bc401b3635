"""A backup restored into a cluster: its brokers run, and nothing else of the mesh does.

A server of a cluster cannot take over the store of one that was alone, so the cluster itself makes the
streams of their files. `choir restore DIR` on one host does that; meanwhile the other hosts run their brokers
alone, with `choir restore --beside`: nobody provisions or writes before all is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from infra.broker.access.accounts import accounts
from infra.broker.backup.manifest import Manifest, StreamEntry
from infra.broker.backup.stream_copy import differs, make_stream, streams_of
from infra.broker.broker import Broker
from infra.broker.cluster import cluster_of
from infra.broker.streams.agreement import agreed
from infra.broker.streams.definitions import Copies
from infra.broker.tls.certificates import BrokerCertificates, trust_of
from infra.host.credentials import Credentials
from infra.host.operator_connection import AGREE_DEADLINE_S, connect_operator
from infra.members.brokers import Shared
from infra.settings import HostSettings
from schemas.errors import BrokerUnavailable, ConfigurationError, InternalError, MeshUnreachable
from services.chassis.settings import MeshSection

LOOK_S = 0.5


@asynccontextmanager
async def broker_of_cluster(
    settings: HostSettings, shared: Shared | None, state: Path
) -> AsyncIterator[Client]:
    """This host's broker of the cluster, where nobody but its operator is let in; the operator's connection.

    ConfigurationError as at the start of a mesh.
    """
    section, credentials = settings.broker, Credentials(state)
    certificates = BrokerCertificates(settings, state)
    certificates.prepare()
    broker = Broker(
        settings.store_dir(state),
        host=section.host,
        port=section.port,
        max_payload=section.max_payload,
        tls=certificates.files,
        name=certificates.name,
        cluster=cluster_of(section, settings.mesh, None if shared is None else shared.secret),
        accounts=accounts(credentials.public_key_of_operator(), (), ()),
    )
    async with broker:
        trust = trust_of(certificates.files)
        operator = MeshSection(url=broker.url, nkey=str(credentials.operator), **trust)
        client = await connect_operator(broker.url, operator, _nothing)
        try:
            yield client
        finally:
            await client.close()


async def restore_streams(client: Client, manifest: Manifest, folder: Path, replicas: int | None) -> None:
    """Makes the streams of a backup, each with its copies; returns when all copies are complete.

    ConfigurationError if there are streams of a mesh already, MeshUnreachable if the other brokers do not
    come.
    """
    copies = Copies.on(client, replicas)
    if not await agreed(client, copies.replicas, AGREE_DEADLINE_S):
        raise MeshUnreachable(
            f"the other brokers of the cluster have not come within {AGREE_DEADLINE_S:.0f} s: type "
            "`choir restore --beside` on their hosts, after `choir join` with the line of a broker"
        )
    known = {str(info.config.name) for info in await streams_of(client)}
    if there := sorted(known.intersection(entry.name for entry in manifest.streams)):
        raise ConfigurationError(
            f"the cluster has streams already ({', '.join(there)}), and a restore overwrites nothing: stop "
            "its brokers, move the folders of their stores away, and begin anew"
        )
    for entry in manifest.streams:
        wanted = entry.model_copy(update={"config": _for_cluster(entry.config, copies.replicas)})
        made = await make_stream(client, wanted, folder)
        if (difference := differs(entry, made)) is not None:
            raise InternalError(f"stream {entry.name} is not what was backed up: {difference}")
    await _complete(client, manifest.streams)


def _for_cluster(config: dict[str, Any], replicas: int) -> dict[str, Any]:
    """What several servers keep is not written behind: `persist_mode` is for one alone."""
    kept = {name: value for name, value in config.items() if name != "persist_mode"}
    return {**kept, "num_replicas": replicas}


async def _complete(client: Client, entries: tuple[StreamEntry, ...]) -> None:
    js = client.jetstream(timeout=LOOK_S * 4)
    try:
        async with asyncio.timeout(AGREE_DEADLINE_S):
            for entry in entries:
                while not await _is_complete(js, entry.name):  # noqa: ASYNC110  (nobody signals it)
                    await asyncio.sleep(LOOK_S)
    except TimeoutError as error:
        raise BrokerUnavailable("the copies of the streams were not complete in time") from error


async def _is_complete(js: Any, stream: str) -> bool:
    try:
        cluster = (await js.stream_info(stream)).cluster
    except nats.errors.Error:
        return False
    return cluster is not None and bool(cluster.leader) and all(one.current for one in cluster.replicas or ())


async def _nothing() -> None:
    """A connection of a moment takes nothing up again."""
