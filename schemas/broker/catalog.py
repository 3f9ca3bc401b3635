"""The mesh in one table: streams, consumers, buckets, and which service may use which subject.

Provisioning, permissions and the tables in the README are generated from it. A limit of 0 means
that there is none. Sizes are in bytes, times in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from schemas import subjects as s

VERSION = 15
"""Higher by one with each change of what a broker is to have. Streams, consumers and buckets carry it: an
older host leaves alone what a newer one has made."""

MIB = 1024 * 1024
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@dataclass(frozen=True)
class StreamSpec:
    """A JetStream stream. `write_once` keeps the first message of a subject and refuses the others.

    In a cluster a `replicated` one is kept by several servers, and is there while most of them are. Any other
    is kept by one, in its memory: it is as fast as without a cluster, and made anew when that server has
    gone.
    """

    name: str
    subjects: tuple[str, ...]
    why: str
    retention: Literal["limits", "work_queue"] = "limits"
    storage: Literal["file", "memory"] = "file"
    discard: Literal["old", "new"] = "old"
    write_once: bool = False
    max_messages: int = 0
    max_bytes: int = 0
    max_age_s: float = 0
    duplicate_window_s: float = 120
    republish_from: str = ""
    republish_to: str = ""
    persist_async: bool = False
    replicated: bool = True


STREAMS: tuple[StreamSpec, ...] = (
    StreamSpec(
        s.COMMANDS_STREAM,
        (s.ALL_COMMANDS,),
        "durable work, pulled by whoever has a free slot",
        retention="work_queue",
        discard="new",
        max_messages=20_000,
        max_bytes=512 * MIB,
        duplicate_window_s=HOUR_S + 60,
    ),
    StreamSpec(
        s.ANSWERS_STREAM,
        (s.ALL_ANSWERS,),
        "write-once: an answer exists once, whoever retries",
        discard="new",
        write_once=True,
        max_bytes=1024 * MIB,
        max_age_s=HOUR_S * 6,
        republish_from=s.ALL_ANSWERS,
        republish_to=s.ALL_STORED_ANSWERS,
    ),
    StreamSpec(
        s.RESULTS_STREAM,
        (s.ALL_RESULTS,),
        "write-once: a request has exactly one result",
        discard="new",
        write_once=True,
        max_bytes=2048 * MIB,
        max_age_s=DAY_S,
        republish_from=s.ALL_RESULTS,
        republish_to=s.ALL_STORED_RESULTS,
    ),
    StreamSpec(
        s.TOKENS_STREAM,
        (s.ALL_TOKENS,),
        "text while it is generated; a client resumes from a sequence number",
        storage="memory",
        replicated=False,
        max_bytes=64 * MIB,
        max_age_s=600,
        republish_from=s.ALL_TOKENS,
        republish_to=s.ALL_STORED_TOKENS,
    ),
    StreamSpec(
        s.ACTIVATIONS_STREAM,
        (s.ALL_STAGES,),
        "the replay log of a pipeline of stages",
        storage="memory",
        replicated=False,
        max_bytes=256 * MIB,
        max_age_s=600,
    ),
    StreamSpec(
        s.EVENTS_STREAM,
        (s.ALL_EVENTS,),
        "everything that happened",
        max_bytes=1024 * MIB,
        max_age_s=DAY_S * 7,
        duplicate_window_s=600,
        persist_async=True,
    ),
    StreamSpec(
        s.DEAD_STREAM,
        (s.ALL_DEAD, s.MAX_DELIVERIES_ADVISORIES),
        "what could not be done, kept with the reason",
        max_bytes=256 * MIB,
        max_age_s=DAY_S * 7,
    ),
    StreamSpec(
        s.CANARY_STREAM,
        (s.CANARY,),
        "one message that nobody reads, stored every few seconds: while that works, the broker stores",
        max_messages=1,
        max_bytes=MIB,
        max_age_s=HOUR_S,
    ),
)

ACK_WAIT_S = 12.0
MAX_DELIVER = 40
"""How often the broker delivers a message before it gives up: a backstop behind the work loop's own limit."""


@dataclass(frozen=True)
class ConsumerSpec:
    """A durable pull consumer. Many instances of a service share one, so each message has one taker.

    With `ack_policy` "all" the acknowledgement of a message stands for all before it.
    """

    name: str
    stream: str
    filter_subject: str
    ack_policy: Literal["explicit", "all"] = "explicit"
    ack_wait_s: float = ACK_WAIT_S
    max_deliver: int = MAX_DELIVER
    max_ack_pending: int = 8_192
    max_waiting: int = 4_096


FIXED_CONSUMERS: tuple[ConsumerSpec, ...] = (
    *(
        ConsumerSpec(s.gather_consumer(priority), s.COMMANDS_STREAM, s.all_gathers(priority))
        for priority in s.PRIORITIES
    ),
    *(
        ConsumerSpec(s.summarize_consumer(priority), s.COMMANDS_STREAM, s.all_summarizes(priority))
        for priority in s.PRIORITIES
    ),
    ConsumerSpec(s.DEAD_LETTER_CONSUMER, s.DEAD_STREAM, s.MAX_DELIVERIES_ADVISORIES),
    ConsumerSpec(
        s.EVENTS_CONSUMER,
        s.EVENTS_STREAM,
        s.ALL_EVENTS,
        ack_policy="all",
        ack_wait_s=30.0,
        max_deliver=0,
        max_ack_pending=100_000,
    ),
)


def model_consumers(model: str) -> tuple[ConsumerSpec, ...]:
    """The consumers from which agents of `model` pull: one for each class of work."""
    return tuple(
        ConsumerSpec(
            s.generate_consumer(priority, model), s.COMMANDS_STREAM, s.all_generates(priority, model)
        )
        for priority in s.PRIORITIES
    )


def consumers(models: Iterable[str]) -> tuple[ConsumerSpec, ...]:
    """All consumers of a mesh that serves `models`."""
    return (*FIXED_CONSUMERS, *(spec for model in models for spec in model_consumers(model)))


@dataclass(frozen=True)
class BucketSpec:
    """A key-value bucket. With `ttl_s` a key runs out, and a watcher sees it go.

    With `republished` what has been stored passes once more, for those who keep a copy of the bucket.
    """

    name: str
    why: str
    storage: Literal["file", "memory"] = "file"
    ttl_s: float = 0
    history: int = 1
    max_bytes: int = 64 * MIB
    republished: bool = False


CLIENT_USER = "client"
"""The user of the broker that a client is who says no other."""

LEASE_TTL_S = 8.0
FETCH_CLAIM_TTL_S = 12.0
"""Longer than a store takes to be started anew: what it was fetching stays its own."""
INVITES_KEPT_S = 15 * DAY_S
"""Longer than an invite is good, and than the key that it replaces: whoever comes with it later is told why
not."""

BUCKETS: tuple[BucketSpec, ...] = (
    BucketSpec(
        s.NODES_BUCKET,
        "leases of live service instances",
        storage="memory",
        ttl_s=LEASE_TTL_S,
        republished=True,
    ),
    BucketSpec(s.WORKERS_BUCKET, "external HTTP workers that a user registered", republished=True),
    BucketSpec(
        s.WORKER_CLAIMS_BUCKET,
        "which agent uses an external worker",
        storage="memory",
        ttl_s=LEASE_TTL_S,
        republished=True,
    ),
    BucketSpec(
        s.ATTEMPTS_BUCKET,
        "how deliveries of commands ended that were no success",
        ttl_s=2 * HOUR_S,
    ),
    BucketSpec(s.PIPELINES_BUCKET, "placement plans with an epoch", republished=True),
    BucketSpec(
        s.RESPONSES_BUCKET, "what was asked, for clients that come back", ttl_s=DAY_S, max_bytes=256 * MIB
    ),
    BucketSpec(s.RETRIES_BUCKET, "what HTTP clients may send again", storage="memory", ttl_s=900.0),
    BucketSpec(
        s.KEY_USES_BUCKET,
        "tokens that API keys used within a minute, and requests that they have in work",
        storage="memory",
        ttl_s=120.0,
        max_bytes=8 * MIB,
    ),
    BucketSpec(s.KEYS_BUCKET, "API keys: the digests of their secrets, and what they open", republished=True),
    BucketSpec(
        s.CORDONS_BUCKET, "hosts and instances that get nothing new", max_bytes=8 * MIB, republished=True
    ),
    BucketSpec(
        s.ENSEMBLES_BUCKET,
        "ensembles with a name, and whose word each is",
        max_bytes=8 * MIB,
        republished=True,
    ),
    BucketSpec(s.FILES_BUCKET, "files that clients have uploaded, and those of batches", ttl_s=7 * DAY_S),
    BucketSpec(
        s.FILE_PIECES_BUCKET, "what is in these files, piece by piece", ttl_s=7 * DAY_S, max_bytes=512 * MIB
    ),
    BucketSpec(s.BATCHES_BUCKET, "batches of requests, and how far they have come", ttl_s=7 * DAY_S),
    BucketSpec(s.CACHE_BUCKET, "responses", ttl_s=HOUR_S, max_bytes=256 * MIB),
    BucketSpec(s.SCORES_BUCKET, "accuracy per agent and topic, agreement of agents", republished=True),
    BucketSpec(s.FEEDBACK_BUCKET, "requests whose feedback is counted", ttl_s=DAY_S + HOUR_S),
    BucketSpec(s.TENANTS_BUCKET, "who may ask, and how much", max_bytes=8 * MIB, republished=True),
    BucketSpec(
        s.HOSTS_BUCKET, "hosts that have joined, and their processes", max_bytes=8 * MIB, republished=True
    ),
    BucketSpec(
        s.INVITES_BUCKET,
        "who may join, once",
        ttl_s=INVITES_KEPT_S,
        max_bytes=8 * MIB,
        republished=True,
    ),
    BucketSpec(s.STORED_MODELS_BUCKET, "models that the mesh keeps"),
    BucketSpec(s.MODEL_FILES_BUCKET, "files of models: the hash of every chunk", max_bytes=512 * MIB),
    BucketSpec(s.MODEL_COPIES_BUCKET, "which store holds which file"),
    BucketSpec(
        s.MODEL_FETCHES_BUCKET,
        "which store fetches a file from outside",
        ttl_s=FETCH_CLAIM_TTL_S,
        max_bytes=8 * MIB,
    ),
)


@dataclass(frozen=True)
class Access:
    """What one service may do: publish to, subscribe to, pull from streams, read streams, use buckets.

    `consumers` are those that it pulls from, of its streams; without any those of the models that it serves.
    `deletes` are streams whose single messages it may delete, `purges` those it may empty from the front;
    `counts` are those of whose consumers it may ask how much waits for them.
    """

    service: str
    publishes: tuple[str, ...]
    subscribes: tuple[str, ...]
    pulls: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    purges: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    buckets_read: tuple[str, ...] = ()
    buckets_written: tuple[str, ...] = (s.NODES_BUCKET,)


ACCESS: tuple[Access, ...] = (
    Access(
        "router",
        publishes=(
            s.ALL_COMMANDS, s.ALL_ANSWERS, s.ALL_RESULTS, s.ALL_CANCELS, s.ALL_COUNTS, s.ALL_TOKENIZERS,
            s.ALL_DEAD, s.ALL_EVENTS, s.ALL_LOAD_ORDERS, s.doors(s.STORE),
        ),
        subscribes=(
            s.doors(s.ASK), s.doors(s.STREAM_ASK), s.doors(s.SUBMIT), s.doors(s.FETCH),
            s.doors(s.STREAM_FETCH), s.doors(s.CANCEL), s.doors(s.NODES), s.doors(s.MODELS),
            s.doors(s.STATUS), s.doors(s.SHARD), s.doors(s.WORKER), s.doors(s.TOKENIZE),
            s.doors(s.DEAD_LETTERS), s.doors(s.KEYS), s.doors(s.CORDON), s.doors(s.LOAD),
            s.keyed_doors(s.NODES), s.keyed_doors(s.STATUS), s.keyed_doors(s.WORKER),
            s.keyed_doors(s.SHARD), s.keyed_doors(s.KEYS), s.keyed_doors(s.CORDON), s.keyed_doors(s.LOAD),
            s.keyed_doors(s.ENSEMBLES), s.keyed_doors(s.STORE),
            s.doors(s.ENSEMBLES), s.ALL_STORED_RESULTS, s.ALL_STORED_TOKENS,
        ),
        pulls=(s.DEAD_STREAM,),
        consumers=(s.DEAD_LETTER_CONSUMER,),
        reads=(s.COMMANDS_STREAM, s.ANSWERS_STREAM, s.RESULTS_STREAM, s.TOKENS_STREAM, s.DEAD_STREAM),
        deletes=(s.COMMANDS_STREAM, s.DEAD_STREAM),
        purges=(s.ANSWERS_STREAM, s.RESULTS_STREAM),
        counts=(s.COMMANDS_STREAM,),
        buckets_read=(
            s.NODES_BUCKET, s.PIPELINES_BUCKET, s.WORKERS_BUCKET, s.ATTEMPTS_BUCKET, s.KEYS_BUCKET,
            s.TENANTS_BUCKET, s.CACHE_BUCKET, s.CORDONS_BUCKET, s.ENSEMBLES_BUCKET,
        ),
        buckets_written=(
            s.NODES_BUCKET, s.PIPELINES_BUCKET, s.WORKERS_BUCKET, s.KEYS_BUCKET, s.CACHE_BUCKET,
            s.CORDONS_BUCKET, s.ENSEMBLES_BUCKET,
        ),
    ),
    Access(
        "agent",
        publishes=(
            s.ALL_ANSWERS, s.ALL_RESULTS, s.ALL_TOKENS, s.ALL_DEAD, s.ALL_EVENTS, s.ALL_HELD_MODELS,
            s.ALL_PREFIX_SIGNALS,
        ),
        subscribes=(
            s.ALL_CANCELS, s.ALL_COUNTS, s.ALL_TOKENIZERS, s.ALL_LOAD_ORDERS, s.ALL_PREFIX_SIGNALS,
        ),
        pulls=(s.COMMANDS_STREAM,),
        reads=(s.ANSWERS_STREAM, s.RESULTS_STREAM),
        buckets_read=(
            s.NODES_BUCKET, s.WORKERS_BUCKET, s.WORKER_CLAIMS_BUCKET, s.ATTEMPTS_BUCKET, s.CORDONS_BUCKET,
        ),
        buckets_written=(s.NODES_BUCKET, s.WORKER_CLAIMS_BUCKET, s.ATTEMPTS_BUCKET),
    ),
    Access(
        "aggregator",
        publishes=(s.ALL_COMMANDS, s.ALL_RESULTS, s.ALL_CANCELS, s.ALL_DEAD, s.ALL_EVENTS),
        subscribes=(s.ALL_STORED_ANSWERS, s.doors(s.FEEDBACK), s.doors(s.SCORES), s.ALL_CANCELS),
        pulls=(s.COMMANDS_STREAM,),
        consumers=tuple(s.gather_consumer(priority) for priority in s.PRIORITIES),
        reads=(s.ANSWERS_STREAM, s.RESULTS_STREAM),
        buckets_read=(s.SCORES_BUCKET, s.ATTEMPTS_BUCKET),
        buckets_written=(s.NODES_BUCKET, s.SCORES_BUCKET, s.FEEDBACK_BUCKET, s.ATTEMPTS_BUCKET),
    ),
    Access(
        "summarizer",
        publishes=(
            s.ALL_COMMANDS, s.ALL_RESULTS, s.ALL_CANCELS, s.ALL_COUNTS, s.AGENT_PING,
            s.ALL_DEAD, s.ALL_EVENTS,
        ),
        subscribes=(s.ALL_STORED_ANSWERS, s.ALL_CANCELS),
        pulls=(s.COMMANDS_STREAM,),
        consumers=tuple(s.summarize_consumer(priority) for priority in s.PRIORITIES),
        reads=(s.ANSWERS_STREAM, s.RESULTS_STREAM),
        buckets_read=(s.NODES_BUCKET, s.ATTEMPTS_BUCKET),
        buckets_written=(s.NODES_BUCKET, s.ATTEMPTS_BUCKET),
    ),
    Access(
        "shard_stage",
        publishes=(
            s.ALL_STAGES, s.ALL_ANSWERS, s.ALL_RESULTS, s.ALL_TOKENS, s.ALL_STAGE_SIGNALS,
            s.ALL_DEAD, s.ALL_EVENTS, s.ALL_BLOBS,
        ),
        subscribes=(s.ALL_STAGES, s.ALL_STAGE_SIGNALS, s.ALL_CANCELS, s.ALL_COUNTS, s.ALL_TOKENIZERS),
        pulls=(s.COMMANDS_STREAM,),
        reads=(s.ANSWERS_STREAM, s.RESULTS_STREAM, s.ACTIVATIONS_STREAM),
        buckets_read=(
            s.NODES_BUCKET, s.PIPELINES_BUCKET, s.ATTEMPTS_BUCKET, s.STORED_MODELS_BUCKET,
            s.MODEL_FILES_BUCKET, s.MODEL_COPIES_BUCKET, s.CORDONS_BUCKET,
        ),
        buckets_written=(s.NODES_BUCKET, s.PIPELINES_BUCKET, s.ATTEMPTS_BUCKET),
    ),
    Access(
        "modelstore",
        publishes=(s.ALL_BLOBS, s.ALL_STORE_ORDERS, s.ALL_EVENTS),
        subscribes=(
            s.doors(s.STORE), s.ALL_BLOBS, s.ALL_STORE_ORDERS, s.ALL_HELD_MODELS,
        ),
        buckets_read=(
            s.NODES_BUCKET, s.STORED_MODELS_BUCKET, s.MODEL_FILES_BUCKET, s.MODEL_COPIES_BUCKET,
            s.MODEL_FETCHES_BUCKET,
        ),
        buckets_written=(
            s.NODES_BUCKET, s.STORED_MODELS_BUCKET, s.MODEL_FILES_BUCKET, s.MODEL_COPIES_BUCKET,
            s.MODEL_FETCHES_BUCKET,
        ),
    ),
    Access(
        "metrics",
        publishes=(s.ALL_EVENTS,),
        subscribes=(s.doors(s.SQL), s.keyed_doors(s.SQL)),
        pulls=(s.EVENTS_STREAM,),
        consumers=(s.EVENTS_CONSUMER,),
        reads=(s.EVENTS_STREAM,),
        buckets_read=(s.TENANTS_BUCKET, s.KEYS_BUCKET),
    ),
    Access(
        "gateway",
        publishes=(
            s.doors(s.ASK), s.doors(s.STREAM_ASK), s.doors(s.SUBMIT), s.doors(s.FETCH),
            s.doors(s.STREAM_FETCH), s.doors(s.CANCEL), s.doors(s.MODELS), s.doors(s.TOKENIZE),
            s.doors(s.FEEDBACK), s.keyed_doors(s.NODES), s.keyed_doors(s.STATUS), s.keyed_doors(s.SQL),
            s.keyed_doors(s.WORKER), s.keyed_doors(s.SHARD), s.keyed_doors(s.KEYS),
            s.keyed_doors(s.CORDON), s.keyed_doors(s.LOAD), s.keyed_doors(s.STORE),
            s.keyed_doors(s.ENSEMBLES),
            s.keyed_doors(s.INVITE), s.keyed_doors(s.TENANTS), s.keyed_doors(s.HOSTS), s.ALL_EVENTS,
        ),
        subscribes=(),
        buckets_read=(
            s.RESPONSES_BUCKET, s.RETRIES_BUCKET, s.KEYS_BUCKET, s.KEY_USES_BUCKET, s.TENANTS_BUCKET,
            s.FILES_BUCKET,
            s.FILE_PIECES_BUCKET, s.BATCHES_BUCKET,
        ),
        buckets_written=(
            s.NODES_BUCKET, s.RESPONSES_BUCKET, s.RETRIES_BUCKET, s.KEY_USES_BUCKET, s.FILES_BUCKET,
            s.FILE_PIECES_BUCKET,
            s.BATCHES_BUCKET,
        ),
    ),
)  # fmt: skip


SUPERVISOR = "supervisor"
"""Who answers where no service does: the supervisor of a host with a broker. Inside it may do everything."""

Role = Literal["ask", "observe", "operate"]
ROLES: tuple[Role, ...] = ("ask", "observe", "operate")
"""What a tenant may do, each with all of those before it."""


@dataclass(frozen=True)
class Endpoint:
    """One request-reply endpoint of the client surface.

    Clients whose role is at least `role` ask on `subject`; the service listens at its `doors`. One that
    `streams` may send several messages, and ends them with an empty one; any other sends exactly one.
    """

    subject: str
    service: str
    takes: str
    gives: str
    why: str
    streams: bool = False
    role: Role = "ask"

    @property
    def doors(self) -> str:
        """Where its service listens: at every tenant's door."""
        return s.doors(self.subject)

    @property
    def keyed_doors(self) -> str | None:
        """Where gateways come with an API key; None where they do not come."""
        return s.keyed_doors(self.subject) if self.subject in KEYED else None

    @property
    def keyed_service(self) -> str:
        """Who listens there."""
        return "router" if self.subject in RELAYED else self.service


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(s.ASK, "router", "Ask", "Result", "ask and wait for the result"),
    Endpoint(s.STREAM_ASK, "router", "Ask", "Result", "the same, and before it the text as it comes", True),
    Endpoint(s.SUBMIT, "router", "Ask", "Accepted", "ask, and fetch the result later"),
    Endpoint(s.FETCH, "router", "Fetch", "Result", "a result"),
    Endpoint(s.STREAM_FETCH, "router", "Fetch", "Result", "the same, and the text before it", True),
    Endpoint(s.CANCEL, "router", "Cancel", "Cancelled", "give up a request"),
    Endpoint(s.NODES, "router", "-", "NodesReply", "all live service instances", role="observe"),
    Endpoint(s.MODELS, "router", "-", "ModelsReply", "all models that can be asked"),
    Endpoint(s.STATUS, "router", "-", "StatusReply", "the mesh at a glance", role="observe"),
    Endpoint(s.SHARD, "router", "Shard", "ShardReply", "run a model as a pipeline of stages", role="operate"),
    Endpoint(s.SQL, "metrics", "Sql", "Rows", "ask the event database: read-only SQL", role="observe"),
    Endpoint(
        s.WORKER, "router", "ManageWorkers", "WorkersReply", "list or change external workers", role="operate"
    ),
    Endpoint(s.TOKENIZE, "router", "Tokenize", "Tokenized", "tokens of a text, text of tokens"),
    Endpoint(
        s.DEAD_LETTERS, "router", "ManageDeadLetters", "DeadLettersReply", "what is not done", role="operate"
    ),
    Endpoint(s.KEYS, "router", "ManageKeys", "KeysReply", "list or change API keys", role="operate"),
    Endpoint(
        s.CORDON, "router", "ManageCordons", "CordonsReply", "who gets nothing new", role="operate"
    ),
    Endpoint(
        s.LOAD, "router", "ManageLoaded", "LoadedReply", "load or unload a model on demand", role="operate"
    ),
    Endpoint(
        s.ENSEMBLES, "router", "ManageEnsembles", "EnsemblesReply", "list or change named ensembles",
        role="operate",
    ),
    Endpoint(s.STORE, "modelstore", "ManageStore", "StoreReply", "models that are kept", role="operate"),
    Endpoint(s.FEEDBACK, "aggregator", "Feedback", "FeedbackCounted", "say what was right: weights learn"),
    Endpoint(
        s.SCORES, "aggregator", "ReadScores", "ScoresReply", "what has been learnt of agents", role="operate"
    ),
    Endpoint(s.INVITE, SUPERVISOR, "MakeInvite", "InviteMade", "let a host or a person in", role="operate"),
    Endpoint(
        s.TENANTS, SUPERVISOR, "ManageTenants", "TenantsReply", "list or limit who may ask", role="operate"
    ),
    Endpoint(s.HOSTS, SUPERVISOR, "ManageHosts", "HostsReply", "hosts that have joined", role="operate"),
)  # fmt: skip


KEYED: dict[str, tuple[str, ...]] = {
    **{subject: ("observe",) for subject in (s.NODES, s.STATUS)},
    s.SQL: ("observe", "generate"),
    **{
        subject: ("operate",)
        for subject in (
            s.WORKER, s.SHARD, s.KEYS, s.CORDON, s.LOAD, s.STORE, s.INVITE, s.TENANTS, s.HOSTS,
            s.ENSEMBLES,
        )
    },
}  # fmt: skip
"""What a gateway asks only with the API key of whoever asked it, and the scopes of which the key has to have
one. Of the event database a key without `observe` sees the rows of its tenant."""

RELAYED = frozenset((s.STORE,))
"""Of those whom a router hears with the key, and asks without: any host that joins may keep models, and no
such host is shown what opens the mesh."""


def endpoints_of(role: Role) -> tuple[Endpoint, ...]:
    """What a tenant of a role may ask."""
    return tuple(one for one in ENDPOINTS if ROLES.index(one.role) <= ROLES.index(role))


def door_mappings(tenant: str = s.LOCAL_TENANT) -> dict[str, str]:
    """Subject -> door for every endpoint: how a broker without accounts leads its clients to the services."""
    return {endpoint.subject: s.door(tenant, endpoint.subject) for endpoint in ENDPOINTS}
