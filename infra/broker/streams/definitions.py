"""What the catalog says, in the broker's words: the configurations of streams, buckets and consumers, and how
those that a broker has differ from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from nats.aio.client import Client
from nats.js import api

from schemas import subjects
from schemas.broker import catalog
from schemas.broker.catalog import BucketSpec, ConsumerSpec, StreamSpec

NO_LIMIT = -1
LEAST_MARKER_S = 1.0
LONGEST_MARKER_S = 60.0

CLUSTER_REPLICAS = 3
"""One of three servers may go, and the other two agree."""

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


def made_for_worker(found: api.ConsumerConfig) -> dict[str, str]:
    """The metadata of a queue that was made for an external worker: an update has to repeat it."""
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
