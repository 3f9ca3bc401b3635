"""The only place where a subject, stream, consumer or bucket name is spelled.

A subject is a list of tokens joined by dots, so whatever a user may choose freely (a model's
name, a node's name) is encoded into one token first: see `encode_token`.
"""

from __future__ import annotations

import string
from functools import lru_cache
from typing import Literal

Priority = Literal["interactive", "batch"]
PRIORITIES: tuple[Priority, ...] = ("interactive", "batch")

# --- tokens -----------------------------------------------------------------------------

_PLAIN = frozenset(string.ascii_letters + string.digits + "-_")


@lru_cache(maxsize=4096)
def encode_token(name: str) -> str:
    """One subject token for any non-empty name: `llama3.2:3b` -> `llama3=2E2=3A3b`.

    Letters, digits, `-` and `_` stay; every other UTF-8 byte becomes `=XX` (upper-case hex).
    The result is also a valid KV key and consumer name. `decode_token` is the inverse.
    """
    if not name:
        raise ValueError("an empty name has no subject token")
    return "".join(
        char if char in _PLAIN else "".join(f"={byte:02X}" for byte in char.encode()) for char in name
    )


def decode_token(token: str) -> str:
    """The name that `encode_token` made `token` from; ValueError for anything it cannot have made."""
    head, *escaped = token.split("=")
    octets = bytearray(head.encode())
    for part in escaped:
        octets.append(int(part[:2], 16))
        octets += part[2:].encode()
    name = octets.decode()
    if encode_token(name) != token:
        raise ValueError(f"not an encoded token: {token!r}")
    return name


# --- the client surface: core NATS request-reply ----------------------------------------
# A client asks on `choir.<endpoint>` in its own account. The broker hands the request on to the services
# through a door that says whose it is: `choir.door.<tenant>.<endpoint>`.

ASK = "choir.ask"
SUBMIT = "choir.submit"
FETCH = "choir.fetch"
CANCEL = "choir.cancel"
FEEDBACK = "choir.feedback"
SCORES = "choir.scores"
NODES = "choir.nodes"
MODELS = "choir.models"
STATUS = "choir.status"
SQL = "choir.sql"
SHARD = "choir.shard"
WORKER = "choir.worker"
TOKENIZE = "choir.tokenize"
DEAD_LETTERS = "choir.dead_letters"
KEYS = "choir.keys"
CORDON = "choir.cordon"
LOAD = "choir.load"
ENSEMBLES = "choir.ensembles"
STORE = "choir.store"
INVITE = "choir.invite"
TENANTS = "choir.tenants"
HOSTS = "choir.hosts"
STREAM_ASK = "choir.stream.ask"
STREAM_FETCH = "choir.stream.fetch"

LOCAL_TENANT = "local"
"""Whoever is not told apart from others: on loopback everybody who comes without credentials."""


def door(tenant: str, subject: str) -> str:
    """Where the services hear what a tenant asks on a `subject` of the client surface."""
    return f"choir.door.{encode_token(tenant)}.{subject.removeprefix('choir.')}"


def doors(subject: str) -> str:
    """Where the services hear what anybody asks on a `subject` of the client surface."""
    return f"choir.door.*.{subject.removeprefix('choir.')}"


def keyed_door(tenant: str, subject: str) -> str:
    """Where the services hear what a gateway asks for a tenant with the API key of whoever asked the gateway.

    The key comes along (`API_KEY_HEADER`), and the service looks whether it opens that.
    """
    return f"choir.keyed.{encode_token(tenant)}.{subject.removeprefix('choir.')}"


def keyed_doors(subject: str) -> str:
    """Where the services hear what gateways ask with anybody's API key."""
    return f"choir.keyed.*.{subject.removeprefix('choir.')}"


def is_keyed(subject: str) -> bool:
    """Whether an API key has to come along with what is asked there."""
    return subject.startswith("choir.keyed.")


def tenant_at(subject: str) -> str:
    """Whose door a request came through: the broker's word. LOCAL_TENANT for a `subject` that is no door.

    At a keyed door it is the gateway's word, until the key has been looked at.
    """
    match subject.split("."):
        case ["choir", "door" | "keyed", tenant, _, *_]:
            return decode_token(tenant)
        case _:
            return LOCAL_TENANT


def asked_on(subject: str) -> str:
    """What a client has asked on, of a request that came through a door; else the `subject` itself."""
    match subject.split("."):
        case ["choir", "door" | "keyed", _, *endpoint] if endpoint:
            return ".".join(("choir", *endpoint))
        case _:
            return subject


# --- joining: who asks is known by the subject, for the broker lets nobody else publish there -------------


def join(invite: str) -> str:
    """Where whoever holds an invite says who comes; `invite` is its public key."""
    return f"choir.join.{encode_token(invite)}"


def enrol(host: str) -> str:
    """Where a host that has joined tells of its processes."""
    return f"choir.host.{encode_token(host)}.enrol"


def invite_of(subject: str) -> str:
    """The public key of the invite by which somebody asks to join."""
    return decode_token(subject.rsplit(".", 1)[1])


def host_of(subject: str) -> str:
    """Which host tells of its processes."""
    return decode_token(subject.split(".")[2])


ALL_JOINS = "choir.join.*"
ALL_ENROLS = "choir.host.*.enrol"


def joining_inbox(invite: str) -> str:
    """The inbox prefix of whoever holds an invite."""
    return f"{inbox_prefix('join')}.{encode_token(invite)}"


def host_inbox(host: str) -> str:
    """The inbox prefix of the supervisor of a host that has joined."""
    return f"{inbox_prefix('host')}.{encode_token(host)}"


# --- whose a request is -------------------------------------------------------------------
# Clients choose the ids of their requests, so two tenants may choose the same. Inside the mesh a request has
# its tenant in its id, which no id of a client can look like: to ask for another's is to ask for one's own.


def owned_id(tenant: str, request_id: str) -> str:
    """The id inside the mesh of what `tenant` calls `request_id`: `alice=r1`, of the tenant local `r1`."""
    return request_id if tenant == LOCAL_TENANT else f"{encode_token(tenant)}={request_id}"


def owner_of(request_id: str) -> str:
    """Whose request it is, by its id inside the mesh."""
    token, _, _ = request_id.rpartition("=")
    return decode_token(token) if token else LOCAL_TENANT


def bare_id(request_id: str) -> str:
    """The id by which its client knows a request, of its id inside the mesh."""
    return request_id.rpartition("=")[2]


# --- streams ----------------------------------------------------------------------------

COMMANDS_STREAM = "COMMANDS"
ANSWERS_STREAM = "ANSWERS"
RESULTS_STREAM = "RESULTS"
TOKENS_STREAM = "TOKENS"
ACTIVATIONS_STREAM = "ACTIVATIONS"
EVENTS_STREAM = "EVENTS"
DEAD_STREAM = "DEAD"

ALL_COMMANDS = "choir.command.>"
ALL_ANSWERS = "choir.answer.>"
ALL_RESULTS = "choir.result.>"
ALL_TOKENS = "choir.token.>"
ALL_STAGES = "choir.stage.>"
ALL_EVENTS = "choir.event.>"
ALL_DEAD = "choir.dead.>"
CANARY_STREAM = "CANARY"
CANARY = "choir.canary"
MAX_DELIVERIES_ADVISORIES = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"

ALL_STORED_ANSWERS = "choir.stored.answer.>"
ALL_STORED_RESULTS = "choir.stored.result.>"
ALL_STORED_TOKENS = "choir.stored.token.>"


def generate(priority: Priority, model: str, request_id: str) -> str:
    """Where a `Generate` for `model` is queued."""
    return f"choir.command.generate.{priority}.{encode_token(model)}.{request_id}"


def all_generates(priority: Priority, model: str) -> str:
    """Every `Generate` of one class for `model`: the filter of its work-queue consumer."""
    return f"choir.command.generate.{priority}.{encode_token(model)}.*"


def every_generate() -> str:
    """Where each `Generate` passes, of any class of work and any model."""
    return "choir.command.generate.>"


def gather(priority: Priority, request_id: str) -> str:
    """Where a `Gather` is queued."""
    return f"choir.command.gather.{priority}.{request_id}"


def all_gathers(priority: Priority) -> str:
    """Every `Gather` of one class: the filter of its work-queue consumer."""
    return f"choir.command.gather.{priority}.*"


def summarize(priority: Priority, request_id: str) -> str:
    """Where a `Summarize` is queued."""
    return f"choir.command.summarize.{priority}.{request_id}"


def all_summarizes(priority: Priority) -> str:
    """Every `Summarize` of one class: the filter of its work-queue consumer."""
    return f"choir.command.summarize.{priority}.*"


def commands_of(request_id: str) -> tuple[str, ...]:
    """The subjects under which any command of a request may be queued (with wildcards).

    First those of the command that the request was stored as, if that asks for others.
    """
    return (
        f"choir.command.gather.*.{request_id}",
        f"choir.command.summarize.*.{request_id}",
        f"choir.command.generate.*.*.{request_id}",
        f"choir.command.held.*.*.*.{request_id}",
        f"choir.command.held.*.generate.*.*.{request_id}",
    )


def all_of_class(priority: Priority) -> str:
    """Every command of a class that is in a queue."""
    return f"choir.command.*.{priority}.>"


def all_held() -> str:
    """Every command that waits for its place in a queue."""
    return "choir.command.held.>"


def held(tenant: str, subject: str) -> str:
    """Where a command of a tenant waits for its place in the queue of `subject`; nobody pulls from there."""
    return f"choir.command.held.{encode_token(tenant)}.{subject.removeprefix('choir.command.')}"


def all_held_generates() -> str:
    """Every `Generate` that waits for its place in the queue of its model."""
    return "choir.command.held.*.generate.>"


def is_held(subject: str) -> bool:
    """Whether a command's subject is one of those."""
    return subject.startswith("choir.command.held.")


def freed(subject: str) -> str:
    """The subject in the queue of a command that is held."""
    return f"choir.command.{subject.split('.', 4)[4]}"


def queue_of(subject: str) -> str:
    """The queue of a command, by its subject: the same for all that one consumer takes."""
    return subject.rpartition(".")[0]


def model_of_generate(subject: str) -> str:
    """The model that the `Generate` of a subject is for, in its queue or held for it."""
    return decode_token(subject.split(".")[-2])


def is_batch(subject: str) -> bool:
    """Whether a command's subject is one of batch work."""
    return (freed(subject) if is_held(subject) else subject).split(".")[3] == "batch"


def request_of_command(subject: str) -> str:
    """The request id in a command's subject."""
    return subject.rpartition(".")[2]


def answer(request_id: str, round_: int, agent: str) -> str:
    """The write-once place of one answer; `agent` is the member's name, not yet encoded."""
    return f"choir.answer.{request_id}.{round_}.{encode_token(agent)}"


def all_stored_answers_of(request_id: str) -> str:
    """Answers of every round of a request, delivered only once they are stored."""
    return f"choir.stored.answer.{request_id}.>"


def stored_subject(subject: str) -> str:
    """Where a message is kept that was heard on `subject`, one that starts with `choir.stored.`."""
    return subject.replace("choir.stored.", "choir.", 1)


def result(request_id: str) -> str:
    """The write-once place of a request's one result."""
    return f"choir.result.{request_id}"


def request_of(subject: str) -> str:
    """The request id at the end of a subject: of a command, a cancellation, a (stored) result."""
    return subject.rsplit(".", 1)[-1]


def token(request_id: str, agent: str) -> str:
    """Where the text of one agent streams."""
    return f"choir.token.{request_id}.{encode_token(agent)}"


def request_of_token(subject: str) -> str:
    """The request id in the subject of a token chunk."""
    return subject.split(".")[2]


def tokens_of(request_id: str) -> str:
    """All token chunks of a request, as kept in the stream."""
    return f"choir.token.{request_id}.*"


def stored_tokens_of(request_id: str) -> str:
    """All token chunks of a request, delivered with their sequence number in the stream."""
    return f"choir.stored.token.{request_id}.*"


def event(service: str, kind: str) -> str:
    """Where a fact is published."""
    return f"choir.event.{service}.{kind}"


def events_of(service: str) -> str:
    """All facts that a service publishes."""
    return f"choir.event.{encode_token(service)}.>"


def dead_of(service: str) -> str:
    """Everything that a service puts aside because it could not work on it."""
    return f"choir.dead.{encode_token(service)}.>"


def dead(service: str, request_id: str) -> str:
    """Where `service` puts a message that it could not work on."""
    return f"choir.dead.{service}.{request_id}"


def dead_letter_of(subject: str) -> tuple[str, str]:
    """The service and the request of a message that could not be worked on."""
    _, _, service, request_id = subject.split(".")
    return service, request_id


def stage(pipeline: int, stage_: int) -> str:
    """Where frames for one stage of a pipeline travel; the log that a replacement reads."""
    return f"choir.stage.{pipeline}.{stage_}"


# --- signals between services: core NATS, never stored -----------------------------------

ALL_CANCELS = "choir.signal.cancel.*"


def cancel_signal(request_id: str) -> str:
    """Tells whoever works on a request that nobody waits for it any more."""
    return f"choir.signal.cancel.{request_id}"


def count_tokens(model: str) -> str:
    """Asks any agent of `model` how many tokens a prompt has."""
    return f"choir.count.{encode_token(model)}"


ALL_COUNTS = "choir.count.*"


def tokenizer(model: str) -> str:
    """Asks any agent of `model` for tokens, for the text of tokens, or about its tokenizer."""
    return f"choir.tokenizer.{encode_token(model)}"


ALL_TOKENIZERS = "choir.tokenizer.*"

AGENT_PING = "$SRV.PING.agent"
"""Every agent answers at once with who it is (ADR-32): the way there and back is what it takes."""

ALL_STAGE_SIGNALS = "choir.signal.stage.*"


def stage_signal(pipeline: int) -> str:
    """Heartbeats of the stages of a pipeline: faster than leases, so that a standby notices a death soon."""
    return f"choir.signal.stage.{pipeline}"


ALL_BLOBS = "choir.blob.*"
ALL_STORE_ORDERS = "choir.signal.store.*"
ALL_HELD_MODELS = "choir.signal.held.*"
ALL_LOAD_ORDERS = "choir.signal.load.*"
ALL_PREFIX_SIGNALS = "choir.signal.prefix.*"


def blob(instance: str) -> str:
    """Asks the store of this instance for a range of a file; the reply is the bytes."""
    return f"choir.blob.{encode_token(instance)}"


def store_order(instance: str) -> str:
    """Hands on what a client asks of the store of this instance."""
    return f"choir.signal.store.{encode_token(instance)}"


def held_models(instance: str) -> str:
    """Asks the store of this instance which models it holds, and where they lie on its host."""
    return f"choir.signal.held.{encode_token(instance)}"


def load_order(instance: str) -> str:
    """Has the agent of this instance load or unload a model on demand."""
    return f"choir.signal.load.{encode_token(instance)}"


def prefix_signal(instance: str) -> str:
    """Where an agent hears of tasks whose beginnings it keeps, and what became of those that it offered."""
    return f"choir.signal.prefix.{encode_token(instance)}"


# --- consumers --------------------------------------------------------------------------


def generate_consumer(priority: Priority, model: str) -> str:
    """The durable consumer from which agents of `model` pull."""
    return f"generate-{priority}-{encode_token(model)}"


def model_of_consumer(consumer: str) -> str | None:
    """The model whose agents pull from a durable consumer of that name; None of any other consumer."""
    for priority in PRIORITIES:
        if consumer.startswith(start := f"generate-{priority}-"):
            return decode_token(consumer.removeprefix(start))
    return None


def gather_consumer(priority: Priority) -> str:
    """The durable consumer from which aggregators pull."""
    return f"gather-{priority}"


def summarize_consumer(priority: Priority) -> str:
    """The durable consumer from which summarizers pull."""
    return f"summarize-{priority}"


DEAD_LETTER_CONSUMER = "dead-letters"
EVENTS_CONSUMER = "metrics"

# --- buckets ----------------------------------------------------------------------------

NODES_BUCKET = "choir_nodes"
WORKERS_BUCKET = "choir_workers"
PIPELINES_BUCKET = "choir_pipelines"
CACHE_BUCKET = "choir_cache"
SCORES_BUCKET = "choir_scores"
FEEDBACK_BUCKET = "choir_feedback"
WORKER_CLAIMS_BUCKET = "choir_worker_claims"
ATTEMPTS_BUCKET = "choir_attempts"
RESPONSES_BUCKET = "choir_responses"
RETRIES_BUCKET = "choir_retries"
KEYS_BUCKET = "choir_keys"
KEY_USES_BUCKET = "choir_key_uses"
CORDONS_BUCKET = "choir_cordons"
ENSEMBLES_BUCKET = "choir_ensembles"
TENANTS_BUCKET = "choir_tenants"
FILES_BUCKET = "choir_files"
FILE_PIECES_BUCKET = "choir_file_pieces"
BATCHES_BUCKET = "choir_batches"
HOSTS_BUCKET = "choir_hosts"
INVITES_BUCKET = "choir_invites"
STORED_MODELS_BUCKET = "choir_stored_models"
MODEL_FILES_BUCKET = "choir_model_files"
MODEL_COPIES_BUCKET = "choir_model_copies"
MODEL_FETCHES_BUCKET = "choir_model_fetches"


def node_key(service: str, instance: str) -> str:
    """The key of a service instance's lease."""
    return f"{encode_token(service)}.{encode_token(instance)}"


def node_keys(service: str) -> str:
    """The pattern of the keys of the leases of all instances of a service."""
    return f"{encode_token(service)}.*"


def bucket_keys(bucket: str) -> str:
    """Every subject under which a bucket keeps a key. A put that the broker refuses passes here too."""
    return f"$KV.{bucket}.>"


def key_in_bucket(subject: str) -> str:
    """The key in a subject of `bucket_keys`."""
    return subject.split(".", 2)[2]


def bucket_updates(bucket: str) -> str:
    """Where everything passes that has been stored in a bucket: whoever listens here needs no consumer."""
    return f"choir.stored.bucket.{bucket}.>"


def key_of_update(subject: str) -> str:
    """The key in a subject of `bucket_updates`."""
    return subject.split(".", 4)[4]


def pipeline_key(model: str) -> str:
    """The key of a model's placement plan."""
    return encode_token(model)


def score_key(agent: str) -> str:
    """The key of an agent's accuracy history."""
    return f"agent.{encode_token(agent)}"


def agent_of_score(key: str) -> str | None:
    """The agent whose history is under a key of the scores bucket; None for other keys."""
    kind, _, token = key.partition(".")
    return decode_token(token) if kind == "agent" else None


def topic_score_key(agent: str, topic: str) -> str:
    """The key of an agent's accuracy history on one topic."""
    return f"topic.{encode_token(agent)}.{encode_token(topic)}"


def agent_and_topic_of_score(key: str) -> tuple[str, str] | None:
    """The agent and the topic of a history in the scores bucket; None for other keys."""
    match key.split("."):
        case ["topic", agent, topic]:
            return decode_token(agent), decode_token(topic)
        case _:
            return None


def unlabelled_score_key(options: int) -> str:
    """The key of what closed questions of so many options tell without right answers."""
    return f"closed.{options}"


def options_of_score(key: str) -> int | None:
    """How many options the questions had whose updates are under a key of the scores bucket; None for other
    keys."""
    kind, _, token = key.partition(".")
    return int(token) if kind == "closed" else None


def worker_key(worker_id: str) -> str:
    """The key of an external worker, of its registration as of who uses it."""
    return encode_token(worker_id)


def worker_of_key(key: str) -> str:
    """The id of the worker under a key."""
    return decode_token(key)


def api_key(key_id: str) -> str:
    """The key under which an API key is kept."""
    return encode_token(key_id)


def id_of_api_key(key: str) -> str:
    """The id of the API key under a key."""
    return decode_token(key)


def host_cordon_key(host: str) -> str:
    """The key of the cordon around a host."""
    return f"host.{encode_token(host)}"


def instance_cordon_key(instance: str) -> str:
    """The key of the cordon around an instance, of whichever service."""
    return f"instance.{encode_token(instance)}"


def ensemble_key(ensemble: str) -> str:
    """The key of an ensemble with a name."""
    return encode_token(ensemble)


def tenant_key(tenant: str) -> str:
    """The key of a tenant."""
    return encode_token(tenant)


def tenant_of_key(key: str) -> str:
    """The tenant under a key."""
    return decode_token(key)


def host_key(host: str) -> str:
    """The key of a host that has joined."""
    return encode_token(host)


def invite_key(public_key: str) -> str:
    """The key of an invite."""
    return encode_token(public_key)


def stored_model_key(model: str) -> str:
    """The key of a model of the store."""
    return encode_token(model)


def model_file_key(sha256: str) -> str:
    """The key of the chunks of a file, and of who fetches it from outside."""
    return encode_token(sha256)


def other_model_file_key(sha256: str, instance: str) -> str:
    """The key of what a store says of the chunks of a file, where that is not what another said before."""
    return f"{encode_token(sha256)}.{encode_token(instance)}"


def other_model_file_keys(sha256: str) -> str:
    """The pattern of the keys of all that stores say otherwise of the chunks of a file."""
    return f"{encode_token(sha256)}.*"


def model_copy_key(sha256: str, instance: str) -> str:
    """The key of a store's copy of a file."""
    return f"{encode_token(sha256)}.{encode_token(instance)}"


def model_copy_keys(sha256: str) -> str:
    """The pattern of the keys of all copies of a file."""
    return f"{encode_token(sha256)}.*"


def bucket_key(bucket: str, key: str) -> str:
    """The subject under which a bucket keeps a key."""
    return f"$KV.{bucket}.{key}"


def cache_key(tenant: str, said: str) -> str:
    """The key of what a tenant's request says; `said` is a hash of that."""
    return f"{encode_token(tenant)}.{encode_token(said)}"


def response_key(request_id: str) -> str:
    """The key of what is kept of a request beside its result."""
    return request_id


def key_use(key_id: str) -> str:
    """The key of what an API key has used."""
    return encode_token(key_id)


def key_places(key_id: str) -> str:
    """The key of what an API key has in work at which gateway."""
    return f"{encode_token(key_id)}.places"


def key_batch_places(key_id: str) -> str:
    """The key of what an API key has in work of the class batch at which gateway."""
    return f"{encode_token(key_id)}.batch"


def key_requests(key_id: str) -> str:
    """The key of how many requests an API key has asked."""
    return f"{encode_token(key_id)}.requests"


def retry_key(said: str, request_id: str) -> str:
    """The key of a request that may be sent again; `said` is a hash of what it says."""
    return f"{said}.{request_id}"


def keyed_retry_key(request_id: str) -> str:
    """The key of a request with an idempotency key: the hash of what it says is the value."""
    return retry_key("keyed", request_id)


def retry_keys(said: str) -> str:
    """The pattern of the keys of all requests that say the same."""
    return f"{said}.*"


def request_of_retry(key: str) -> str:
    """The request id in a key of the bucket of retries."""
    return key.rpartition(".")[2]


def file_key(file_id: str) -> str:
    """The key of what is told of a file, and of a batch."""
    return encode_token(file_id)


def file_piece_key(file_id: str, number: int) -> str:
    """The key of a piece of a file."""
    return f"{encode_token(file_id)}.{number}"


def file_piece_keys(file_id: str) -> str:
    """The pattern of the keys of all pieces of a file."""
    return f"{encode_token(file_id)}.*"


def number_of_piece(key: str) -> int:
    """The number in the key of a piece."""
    return int(key.rpartition(".")[2])


def attempt_key(sequence: int, delivery: int) -> str:
    """The key of how a delivery, counted from 1, of the command at a sequence number ended."""
    return f"{sequence}.{delivery}"


def attempt_keys(sequence: int) -> str:
    """The pattern of the keys of all deliveries of the command at a sequence number."""
    return f"{sequence}.*"


def feedback_key(request_id: str) -> str:
    """The key that says that a request's feedback has been counted."""
    return request_id


def pending_feedback_keys() -> str:
    """The pattern of the keys of all feedback that is being counted."""
    return "pending.*"


def pending_feedback_key(request_id: str) -> str:
    """The key of what a request's feedback teaches, for as long as it is being counted."""
    return f"pending.{request_id}"


def bucket_stream(bucket: str) -> str:
    """The stream behind a bucket."""
    return f"KV_{bucket}"


def endpoint_name(subject: str) -> str:
    """The name of an endpoint in the services API: its subject without dots and the mesh's prefix."""
    name = asked_on(subject).removeprefix("choir.").replace(".", "-").replace("=", "_").replace("*", "any")
    return f"{name}-keyed" if is_keyed(subject) else name


def inbox_prefix(user: str) -> str:
    """Where replies come to a user of the broker, a service or a client: nobody else may listen there."""
    return f"_INBOX_{encode_token(user)}"


def service_inbox(service: str, instance: str) -> str:
    """Where replies come to one instance of a service."""
    return f"{inbox_prefix(service)}.{encode_token(instance)}"


# --- the broker's own API ----------------------------------------------------------------


def direct_get(stream: str) -> str:
    """Reads a stored message of a stream."""
    return f"$JS.API.DIRECT.GET.{stream}"


def message_get(stream: str) -> str:
    """Reads a stored message of a stream, from the server that leads it."""
    return f"$JS.API.STREAM.MSG.GET.{stream}"


def stream_info(stream: str) -> str:
    """Asks what a stream is and how it does; the reply says what time it is for the broker."""
    return f"$JS.API.STREAM.INFO.{stream}"


def consumer_list(stream: str) -> str:
    """Asks how all consumers of a stream do: how much waits for each, and how much is in work."""
    return f"$JS.API.CONSUMER.LIST.{stream}"


def stream_snapshot(stream: str) -> str:
    """The JetStream API for a copy of a whole stream, as one file in pieces."""
    return f"$JS.API.STREAM.SNAPSHOT.{stream}"


def stream_restore(stream: str) -> str:
    """The JetStream API for a stream made of such a copy."""
    return f"$JS.API.STREAM.RESTORE.{stream}"


def pull_next(stream: str, consumer: str) -> str:
    """Asks a durable consumer for its next messages."""
    return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"


def acknowledgements(stream: str, consumer: str) -> str:
    """Where whoever pulls from a consumer says what became of a message."""
    return f"$JS.ACK.{stream}.{consumer}.>"


# --- headers ----------------------------------------------------------------------------

ERROR_HEADER = "Nats-Service-Error"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"
MESSAGE_ID_HEADER = "Nats-Msg-Id"
EXPECTED_SEQUENCE_HEADER = "Nats-Expected-Last-Subject-Sequence"
SEQUENCE_HEADER = "Nats-Sequence"
SUBJECT_HEADER = "Nats-Subject"
STORED_AT_HEADER = "Nats-Time-Stamp"
REASON_HEADER = "Choir-Reason"
KIND_HEADER = "Choir-Kind"
NEW_HEADER = "Choir-New"
"""Of a request whose id was made for it: nobody has asked under it before, so nobody needs to look."""
KEY_HEADER = "Choir-Key"
"""The id of the API key that a gateway was shown, on a request that it makes for its client."""
API_KEY_HEADER = "Choir-Api-Key"
"""The secret of an API key, with what is asked at a keyed door."""
HANDED_HEADER = "Choir-Handed"
"""On a command that one agent hands to another: where its delivery is acknowledged."""
TRACE_HEADER = "traceparent"
"""W3C trace context, as OpenTelemetry's own propagators write it."""
