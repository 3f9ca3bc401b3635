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
import time
from collections.abc import Iterable, Mapping
from typing import Annotated

import nats
import nats.errors
import structlog
import typer
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from infra.broker.streams.definitions import (
    WORKER_MODEL_KEY,
    Copies,
    Differences,
    bucket_config,
    consumer_config,
    differences,
    made_for_worker,
    stream_config,
    version_of,
)
from schemas.broker import catalog
from schemas.broker.catalog import ConsumerSpec
from schemas.errors import ChoirError, ConfigurationError, MeshUnreachable
from services.chassis.nats.connecting.address import why, without_password
from services.chassis.nats.connecting.ending import end_in_time
from services.chassis.nats.election import ELECTION_PATIENCE_S, passes

PAGE = 256
NO_SPACE_CODES = (10023, 10028, 10047)
"""The broker's codes for: not enough resources, not enough memory, not enough room in the file store."""
ROOM = "; the streams of a mesh may grow to 7 GiB: raise max_file_store and max_memory_store of the server"
NAME_IN_USE_CODE = 10058
TOO_FEW_SERVERS = 10005
"""The broker's code for: there are not so many servers that could keep a copy."""
ANSWER_PATIENCE_S = 20.0
"""A stream is there when its folder is: a disk that others keep busy takes seconds for that."""
CREATE_ATTEMPTS = 10
CREATE_PAUSE_S = 0.2

FIXED_STREAM_FIELDS = frozenset({"storage", "retention", "persist_mode"})
"""What a broker does not change, or Choir does not want changed, once a stream holds messages."""

FIXED_CONSUMER_FIELDS = frozenset({"deliver_policy", "ack_policy", "max_waiting", "replay_policy"})


class TooFewServers(ConfigurationError):
    """Raised when fewer servers of a cluster are there than have to keep a copy: others may be starting."""


async def provision(nc: Client, models: Iterable[str], replicas: int | None = None) -> tuple[str, ...]:
    """Make the broker agree with the catalog, for a mesh that serves `models`.

    `replicas` is how many servers keep what has to survive: by default three where the broker is a cluster.
    They are raised and lowered while the streams are at work, and a leader's word counts all the time.

    Returns what was left alone, for the catalog of a newer version made it. Raises ConfigurationError for
    what cannot be changed, and MeshUnreachable if the broker does not answer.
    """
    js = nc.jetstream(timeout=ANSWER_PATIENCE_S)
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
        if passes(error):
            why = error.description or "it reads its configuration"
            raise MeshUnreachable(f"the broker's JetStream is not there for a moment: {why}") from error
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
                    "there: start the others, or set replicas in section [broker]"
                ) from error
            if error.err_code not in (*NO_SPACE_CODES, NAME_IN_USE_CODE) or not left:
                way_out = ROOM if error.err_code in NO_SPACE_CODES else ""
                raise ConfigurationError(
                    f"stream {wanted.name} could not be created: {error.description}{way_out}"
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
    sign = signed if found is None else made_for_worker(found)
    wanted = wanted.evolve(metadata={**(wanted.metadata or {}), **sign})
    what = f"consumer {spec.name} of stream {spec.stream}"
    if found is not None and version_of(found) > catalog.VERSION:
        return what
    changes: Differences = {} if found is None else differences(wanted, found)
    if found is not None and not changes:
        return None
    _refuse(what, {name: change for name, change in changes.items() if name in FIXED_CONSUMER_FIELDS})
    end_s = time.monotonic() + ELECTION_PATIENCE_S
    while True:
        try:
            await js.add_consumer(spec.stream, wanted)
        except APIError as error:  # also while the broker reads its configuration anew
            if passes(error) and time.monotonic() < end_s:
                await asyncio.sleep(CREATE_PAUSE_S)
                continue
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
    end_in_time()
    try:
        nc = await nats.connect(
            url, max_reconnect_attempts=1, reconnect_time_wait=0.2, connect_timeout=ANSWER_PATIENCE_S
        )
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
