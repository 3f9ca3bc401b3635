"""Creates the streams, consumers and buckets of the catalog on a broker, and keeps them to it.

What is missing is created, what has changed is updated, and what cannot be changed on a live stream
(where it is stored, how it retains) is refused with a message that says what differs. Running it
twice changes nothing. What the catalog of a newer version has made is left as it is: hosts of several
versions may start in any order.

    python -m infra.broker.provision --url nats://127.0.0.1:4222 --model choir-llama
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import nats
import nats.errors
import structlog
import typer
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from schemas import catalog, subjects
from schemas.catalog import BucketSpec, ConsumerSpec, StreamSpec
from schemas.errors import ChoirError, ConfigurationError, MeshUnreachable
from services.chassis.address import why, without_password

NO_LIMIT = -1
PAGE = 256
NO_SPACE_CODES = (10023, 10028, 10047)
"""The broker's codes for: not enough resources, not enough memory, not enough room in the file store."""
NAME_IN_USE_CODE = 10058
TOO_FEW_SERVERS = 10005
"""The broker's code for: there are not so many servers that could keep a copy."""
CREATE_ATTEMPTS = 10
CREATE_PAUSE_S = 0.2
LEAST_MARKER_S = 1.0
LONGEST_MARKER_S = 60.0

CLUSTER_REPLICAS = 3
"""One of three servers may go, and the other two agree."""

FIXED_STREAM_FIELDS = frozenset({"storage", "retention", "persist_mode"})
"""What a broker does not change, or Choir does not want changed, once a stream holds messages."""

FIXED_CONSUMER_FIELDS = frozenset({"deliver_policy", "ack_policy", "max_waiting", "replay_policy"})

VERSION_KEY = "choir-catalog"
"""Where the metadata of a stream or consumer says which version of the catalog made it."""

WORKER_MODEL_KEY = "choir-worker-model"
"""Where the metadata of a queue that was made for an external worker says which model it is for."""

_RETENTION = {"limits": api.RetentionPolicy.LIMITS, "work_queue": api.RetentionPolicy.WORK_QUEUE}

Differences = Mapping[str, tuple[object, object]]


@dataclass(frozen=True)
class Copies:
    """How many servers keep what has to survive, and whether the broker is a cluster at all."""

    replicas: int = 1
    clustered: bool = False

    @classmethod
    def on(cls, client: Client, replicas: int | None = None) -> Copies:
        """For the broker that a client is connected to: so many as are wanted, or what suits the broker."""
        clustered = bool(client._server_info.get("cluster"))
        return cls(replicas or (CLUSTER_REPLICAS if clustered else 1), clustered)


ALONE = Copies()


class TooFewServers(ConfigurationError):
    """Raised when fewer servers of a cluster are there than have to keep a copy: others may be starting."""


def stream_config(spec: StreamSpec, copies: Copies = ALONE) -> api.StreamConfig:
    """The broker's form of a stream.

    A cluster cannot keep several copies of what is written to disk later, and not change that afterwards:
    there every message is on a disk when it is acknowledged.
    """
    return api.StreamConfig(
        name=spec.name,
        description=spec.why,
        subjects=list(spec.subjects),
        retention=_RETENTION[spec.retention],
        storage=api.StorageType(spec.storage),
        discard=api.DiscardPolicy(spec.discard),
        discard_new_per_subject=spec.write_once,
        max_msgs_per_subject=1 if spec.write_once else NO_LIMIT,
        max_msgs=spec.max_messages or NO_LIMIT,
        max_bytes=spec.max_bytes or NO_LIMIT,
        max_age=spec.max_age_s,
        duplicate_window=spec.duplicate_window_s,
        republish=api.RePublish(src=spec.republish_from, dest=spec.republish_to)
        if spec.republish_from
        else None,
        persist_mode=api.PersistMode.ASYNC if spec.persist_async and not copies.clustered else None,
        allow_direct=True,
        num_replicas=copies.replicas if spec.replicated else 1,
        metadata=_made_by(),
    )


def bucket_config(spec: BucketSpec, copies: Copies = ALONE) -> api.StreamConfig:
    """The stream behind a key-value bucket (ADR-8), with markers for keys that run out (ADR-48)."""
    return api.StreamConfig(
        name=subjects.bucket_stream(spec.name),
        description=spec.why,
        subjects=[subjects.bucket_keys(spec.name)],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType(spec.storage),
        discard=api.DiscardPolicy.NEW,
        max_msgs_per_subject=spec.history,
        max_msgs=NO_LIMIT,
        max_bytes=spec.max_bytes or NO_LIMIT,
        max_age=spec.ttl_s,
        duplicate_window=min(120.0, spec.ttl_s or 120.0),
        subject_delete_marker_ttl=min(max(spec.ttl_s, LEAST_MARKER_S), LONGEST_MARKER_S)
        if spec.ttl_s
        else None,
        republish=api.RePublish(src=subjects.bucket_keys(spec.name), dest=subjects.bucket_updates(spec.name))
        if spec.republished
        else None,
        allow_msg_ttl=True,
        allow_rollup_hdrs=True,
        allow_direct=True,
        deny_delete=True,
        num_replicas=copies.replicas,
        metadata=_made_by(),
    )


def consumer_config(spec: ConsumerSpec) -> api.ConsumerConfig:
    """The broker's form of a durable pull consumer."""
    return api.ConsumerConfig(
        name=spec.name,
        durable_name=spec.name,
        filter_subject=spec.filter_subject,
        ack_policy=api.AckPolicy(spec.ack_policy),
        deliver_policy=api.DeliverPolicy.ALL,
        replay_policy=api.ReplayPolicy.INSTANT,
        ack_wait=spec.ack_wait_s,
        max_deliver=spec.max_deliver or NO_LIMIT,
        max_ack_pending=spec.max_ack_pending,
        max_waiting=spec.max_waiting,
        metadata=_made_by(),
    )


def _made_by() -> dict[str, str]:
    return {VERSION_KEY: str(catalog.VERSION)}


def _signed_before(found: api.ConsumerConfig) -> dict[str, str]:
    """What an update has to repeat, so that it stays."""
    return {key: value for key, value in (found.metadata or {}).items() if key == WORKER_MODEL_KEY}


def version_of(config: api.StreamConfig | api.ConsumerConfig) -> int:
    """Which version of the catalog made it; 0 for what none has signed."""
    signed = (config.metadata or {}).get(VERSION_KEY, "")
    return int(signed) if signed.isdecimal() else 0


def differences(wanted: api.Base, found: api.Base) -> Differences:
    """Field -> (found, wanted), for all that `wanted` says; what it leaves open may be anything."""
    wants, finds = _plain(wanted), _plain(found)
    # The broker leaves out what is off, so a rule that is wanted no longer shows only on its side.
    removed: dict[str, object] = {
        name: None for name in ("republish", "subject_delete_marker_ttl") if name in finds
    }
    return {
        name: (finds.get(name), value)
        for name, value in {**removed, **wants}.items()
        if (finds.get(name) or None) != (value or None)
    }


def _plain(config: api.Base) -> dict[str, object]:
    plain = {
        name: value.value if isinstance(value, Enum) else value for name, value in config.as_dict().items()
    }
    if isinstance(metadata := plain.get("metadata"), dict):
        plain["metadata"] = metadata.get(VERSION_KEY)  # the broker writes there as well
    return plain


async def provision(nc: Client, models: Iterable[str], replicas: int | None = None) -> tuple[str, ...]:
    """Make the broker agree with the catalog, for a mesh that serves `models`.

    `replicas` is how many servers keep what has to survive: by default three where the broker is a cluster.
    They are raised and lowered while the streams are at work, and a leader's word counts all the time.

    Returns what was left alone, for the catalog of a newer version made it. Raises ConfigurationError for
    what cannot be changed, and MeshUnreachable if the broker does not answer.
    """
    js = nc.jetstream()
    try:
        streams = await _existing_streams(js)
        copies = Copies.on(nc, replicas)
        newer = [
            await _ensure_stream(js, wanted, streams.get(wanted.name or ""))
            for wanted in (
                *(stream_config(spec, copies) for spec in catalog.STREAMS),
                *(bucket_config(spec, copies) for spec in catalog.BUCKETS),
            )
        ]
        newer += await _ensure_consumers(js, catalog.consumers(dict.fromkeys(models)))
    except APIError as error:
        raise ConfigurationError(f"the broker's JetStream refuses: {error.description}") from error
    except (nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
        raise MeshUnreachable(
            f"the broker's JetStream does not answer: {error}. A broker that `choir up` runs answers only "
            "whom it knows: set user and password in [mesh], or nkey (keys/supervisor.nk in its state folder)"
        ) from error
    left_alone = tuple(what for what in newer if what is not None)
    if left_alone:
        structlog.get_logger("provision").warning(said_of_newer(left_alone))
    return left_alone


def said_of_newer(left_alone: Iterable[str]) -> str:
    """The line that says what was left alone, and why."""
    return (
        f"left as it is, for a newer Choir than this one (catalog {catalog.VERSION}) made it: "
        f"{', '.join(left_alone)}"
    )


async def ensure_worker_model(js: JetStreamContext, model: str) -> None:
    """Make sure that work for the `model` of an external worker can be queued and pulled.

    What is made here is signed, for it may go when there is no such worker any more.
    """
    await _ensure_consumers(js, catalog.model_consumers(model), {WORKER_MODEL_KEY: model})


async def _existing_streams(js: JetStreamContext) -> dict[str, api.StreamConfig]:
    found: dict[str, api.StreamConfig] = {}
    while page := await js.streams_info(offset=len(found)):
        found |= {info.config.name or "": info.config for info in page}
        if len(page) < PAGE:
            break
    return found


async def _ensure_stream(
    js: JetStreamContext, wanted: api.StreamConfig, found: api.StreamConfig | None
) -> str | None:
    """Creates or updates it. The name of one that a newer version made, which is left alone."""
    what = f"stream {wanted.name}"
    found = found or await _created(js, wanted)
    if found is None:
        return None
    if version_of(found) > catalog.VERSION:
        return what
    changes = differences(wanted, found)
    if not changes:
        return None
    _refuse(what, {name: change for name, change in changes.items() if name in FIXED_STREAM_FIELDS})
    try:
        await js.update_stream(wanted)
    except APIError as error:
        raise ConfigurationError(
            f"{what} could not be changed: {error.description} ({_said(changes)})"
        ) from error
    structlog.get_logger("provision").info(f"{what} updated", changes=_said(changes))
    return None


async def _created(js: JetStreamContext, wanted: api.StreamConfig) -> api.StreamConfig | None:
    """Creates it. What another host has created meanwhile is returned.

    Two hosts that start at once ask for the same stream. The broker reserves the space of both before it
    finds that they are the same, so one may be told that there is none, while the other one's is being made.
    """
    for left in reversed(range(CREATE_ATTEMPTS)):
        try:
            await js.add_stream(wanted)
            return None
        except APIError as error:
            if error.err_code == TOO_FEW_SERVERS:
                raise TooFewServers(
                    f"stream {wanted.name} is to be kept by {wanted.num_replicas} servers, and fewer are "
                    f"there: "
                    "start the others, or set replicas in section [broker]"
                ) from error
            if error.err_code not in (*NO_SPACE_CODES, NAME_IN_USE_CODE) or not left:
                raise ConfigurationError(
                    f"stream {wanted.name} could not be created: {error.description}"
                ) from error
        await asyncio.sleep(CREATE_PAUSE_S)
        with contextlib.suppress(NotFoundError):
            return (await js.stream_info(wanted.name or "")).config
    raise AssertionError("the last attempt returns or raises")


async def _ensure_consumers(
    js: JetStreamContext, specs: Iterable[ConsumerSpec], signed: Mapping[str, str] | None = None
) -> list[str | None]:
    """`signed` is added to the metadata of those that are created."""
    existing: dict[str, dict[str, api.ConsumerInfo]] = {}
    newer = []
    for spec in specs:
        if spec.stream not in existing:
            existing[spec.stream] = await existing_consumers(js, spec.stream)
        found = existing[spec.stream].get(spec.name)
        newer.append(await _ensure_consumer(js, spec, None if found is None else found.config, signed or {}))
    return newer


async def existing_consumers(js: JetStreamContext, stream: str) -> dict[str, api.ConsumerInfo]:
    """All consumers of a stream by their names, as the broker tells of them now."""
    found: dict[str, api.ConsumerInfo] = {}
    while page := await js.consumers_info(stream, offset=len(found)):
        found |= {info.name: info for info in page}
        if len(page) < PAGE:
            break
    return found


async def _ensure_consumer(
    js: JetStreamContext,
    spec: ConsumerSpec,
    found: api.ConsumerConfig | None,
    signed: Mapping[str, str],
) -> str | None:
    """Creates or updates it. The name of one that a newer version made, which is left alone."""
    wanted = consumer_config(spec)
    sign = signed if found is None else _signed_before(found)
    wanted = wanted.evolve(metadata={**(wanted.metadata or {}), **sign})
    what = f"consumer {spec.name} of stream {spec.stream}"
    if found is not None and version_of(found) > catalog.VERSION:
        return what
    changes: Differences = {} if found is None else differences(wanted, found)
    if found is not None and not changes:
        return None
    _refuse(what, {name: change for name, change in changes.items() if name in FIXED_CONSUMER_FIELDS})
    try:
        await js.add_consumer(spec.stream, wanted)
    except APIError as error:
        raise ConfigurationError(
            f"{what} could not be created or changed: {error.description} ({_said(changes)})"
        ) from error
    return None


def _refuse(what: str, changes: Differences) -> None:
    if changes:
        raise ConfigurationError(
            f"{what} exists with another definition, and this cannot be changed while it lives: "
            f"{_said(changes)}. Stop the mesh, keep what you need of it, delete it "
            "(`nats stream rm`, or the broker's store_dir), and start again"
        )


def _said(changes: Differences) -> str:
    return "; ".join(f"{name} is {found}, wanted {wanted}" for name, (found, wanted) in changes.items())


async def provision_at(url: str, models: Iterable[str]) -> tuple[str, ...]:
    """Connect, provision, disconnect: what was left alone. MeshUnreachable if nobody answers at `url`."""
    try:
        nc = await nats.connect(url, max_reconnect_attempts=1, reconnect_time_wait=0.2, connect_timeout=5)
    except (OSError, nats.errors.Error) as error:
        raise MeshUnreachable(f"no broker answers at {without_password(url)}: {why(error)}") from error
    try:
        return await provision(nc, models)
    finally:
        await nc.close()


def main(
    url: Annotated[str, typer.Option(help="where the broker is")] = "nats://127.0.0.1:4222",
    model: Annotated[list[str] | None, typer.Option(help="a model that the mesh serves; repeatable")] = None,
) -> None:
    """Create or update the streams, consumers and buckets of a mesh."""
    models = model or []
    try:
        left_alone = asyncio.run(provision_at(url, models))
    except ChoirError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(3 if isinstance(error, MeshUnreachable) else 1) from error
    if left_alone:
        typer.echo(said_of_newer(left_alone))
        return
    typer.echo(
        f"{len(catalog.STREAMS)} streams, {len(catalog.consumers(models))} consumers and "
        f"{len(catalog.BUCKETS)} buckets are as the catalog says"
    )


if __name__ == "__main__":
    typer.run(main)
