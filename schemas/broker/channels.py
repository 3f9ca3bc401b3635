"""What travels where: one row for each subject, with the messages on it and their headers.

`schemas/subjects.py` spells the subjects, `catalog.py` says who may use them and what is kept. Of these three
`asyncapi.json` is written, from which clients in other languages are generated.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

from schemas import commands, replies
from schemas import subjects as s
from schemas.broker import catalog
from schemas.broker.contents import (
    ADVISORY,
    CANARY,
    COUNTED,
    DEAD_LETTER,
    EMPTY,
    ENDING,
    FEEDBACK_UPDATE,
    FILE_PIECE,
    FILE_RANGE,
    HOLDER,
    KEY_PLACES,
    KEY_REQUESTS,
    KEY_USE,
    LEARNT,
    PONG,
    PROBE,
    RETRIED,
    STAGE_ITEMS,
    Payload,
)
from schemas.ensembles import kept
from schemas.events import AnyEvent
from schemas.message import Message
from schemas.nodes import cordons, joining, loading, model_store, prefixes, workers
from schemas.nodes import lease as nodes
from schemas.pipelines import plan as pipelines
from schemas.pipelines.stages import StageBeat
from schemas.requests import cache, dead_letters, files, keys, queries, responses, tenants

EVENTS: tuple[type[Message], ...] = get_args(get_args(AnyEvent)[0])
EVENT_KINDS: tuple[str, ...] = tuple(event.model_fields["kind"].default for event in EVENTS)

COMMAND_HEADERS = (s.MESSAGE_ID_HEADER, s.TRACE_HEADER)
OUTCOME_HEADERS = (s.KIND_HEADER, s.TRACE_HEADER, s.ERROR_HEADER, s.ERROR_CODE_HEADER)
STORED_HEADERS = (s.SEQUENCE_HEADER, s.SUBJECT_HEADER)

REPLY_HEADERS: dict[Payload, tuple[str, ...]] = {
    replies.ErrorReply: OUTCOME_HEADERS,
    replies.Result: OUTCOME_HEADERS,
    replies.TokenChunk: (s.KIND_HEADER,),
    commands.Generate: (s.HANDED_HEADER, s.SUBJECT_HEADER, s.TRACE_HEADER),
    queries.Rows: (s.KIND_HEADER,),
}
"""The headers of those replies that have any."""

HEADERS: dict[str, str] = {
    s.MESSAGE_ID_HEADER: "what the broker knows a second copy by",
    s.TRACE_HEADER: "W3C trace context",
    s.NEW_HEADER: "the request's id was made for it: nobody has asked under it before",
    s.API_KEY_HEADER: "the secret of an API key, which has to open what is asked",
    s.KIND_HEADER: "which of several replies this is: the `kind` in its payload",
    s.ERROR_HEADER: "the error's message on one line; it is there only with an error",
    s.ERROR_CODE_HEADER: "the error's code as HTTP has it, such as 404; it is there only with an error",
    s.HANDED_HEADER: "where the delivery of a command that was handed over is acknowledged",
    s.REASON_HEADER: "why the message is here",
    s.SEQUENCE_HEADER: "the sequence number in the stream, from the broker",
    s.SUBJECT_HEADER: "the subject under which it is stored, from the broker",
    s.EXPECTED_SEQUENCE_HEADER: "compare-and-set: the put is refused if another one came since",
}

TOKEN_RULE = "as one token: letters, digits, - and _ stay, every other UTF-8 byte becomes =XX"
PARAMETERS: dict[str, str] = {
    "file_id": "the id of a file, or of a batch",
    "number": "which piece, from 0; of what a batch leaves the line of its input, from 1",
    "said": "a hash of what an HTTP request says",
    "request_id": "the request: 1 to 64 of A-Z a-z 0-9 _ -, with tenant= before it for another than local",
    "priority": "the class of work",
    "tenant": "whose account the request came from: the broker's word",
    "model": f"the model's name {TOKEN_RULE}",
    "agent": f"the agent's name {TOKEN_RULE}",
    "round": "which time the agents are asked, from 1",
    "service": "the service's name, such as router",
    "instance": f"the instance's name {TOKEN_RULE}",
    "kind": "what happened: the `kind` in the payload",
    "pipeline": "the `number` in the pipeline's plan",
    "stage": "the stage's place in the pipeline, from 0",
    "worker_id": f"the worker's id {TOKEN_RULE}",
    "key_id": f"the API key's id {TOKEN_RULE}",
    "topic": f"the topic {TOKEN_RULE}",
    "options": "how many options the questions had",
    "sequence": "the command's sequence number in its stream",
    "delivery": "which delivery of the command, from 1",
    "stream": "the stream's name",
    "consumer": "the consumer's name",
    "ensemble": f"the ensemble's name {TOKEN_RULE}",
    "key": "any key",
    "host": f"the name of a host that has joined {TOKEN_RULE}",
    "invite": "the public key that an invite stands for",
    "public_key": "the public key that an invite stands for",
    "sha256": "the SHA-256 of a file in hexadecimal digits",
}
"""What stands in braces in an address."""

ENUMS: dict[str, tuple[str, ...]] = {"priority": s.PRIORITIES, "kind": EVENT_KINDS}


@dataclass(frozen=True)
class Channel:
    """One subject: `address` has its parameters in braces, `carries` what travels there.

    `replies` are what a request there may get besides an ErrorReply; `pulled_by` the services that take it
    from its stream as work. `bucket` is that of a key's value, and `stored` says that the broker passes on
    here what it has stored.
    """

    name: str
    address: str
    carries: tuple[Payload, ...]
    why: str
    headers: tuple[str, ...] = ()
    replies: tuple[Payload, ...] = ()
    pulled_by: tuple[str, ...] = ()
    bucket: str = ""
    stored: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the address's braces."""
        return tuple(re.findall(r"\{(\w+)\}", self.address))


def address(spell: Callable[..., str]) -> str:
    """What a function of `subjects` spells, with its parameters in braces: `choir.result.{request_id}`."""
    names = [name.rstrip("_") for name in inspect.signature(spell).parameters]
    spelled = spell(*(f"{{{name}}}" for name in names))
    return spelled.replace(s.encode_token("{"), "{").replace(s.encode_token("}"), "}")


def matches(subject: str, pattern: str) -> bool:
    """Whether a pattern with wildcards takes in a subject or an address."""
    match subject.split("."), pattern.split("."):
        case [_, *_], [">"]:
            return True
        case [one, *rest], [other, *others] if other in ("*", one):
            return matches(".".join(rest), ".".join(others)) if rest and others else not rest and not others
    return False


def stream_of(channel: Channel) -> catalog.StreamSpec | None:
    """The stream that keeps what travels on a channel."""
    kept = (spec for spec in catalog.STREAMS if any(matches(channel.address, p) for p in spec.subjects))
    return next(kept, None)


def _endpoint(endpoint: catalog.Endpoint) -> Channel:
    contract: dict[str, type[Message]] = {
        name: value
        for part in (
            commands, cordons, dead_letters, joining, kept, keys, loading, model_store, pipelines, queries,
            replies, tenants, workers,
        )
        for name, value in vars(part).items()
    }  # fmt: skip
    takes = Message if endpoint.takes == "-" else contract[endpoint.takes]
    gives = contract[endpoint.gives]
    return Channel(
        s.endpoint_name(endpoint.subject),
        endpoint.subject,
        (takes,),
        endpoint.why,
        headers=(s.TRACE_HEADER, s.NEW_HEADER) if takes is commands.Ask else (s.TRACE_HEADER,),
        replies=(gives, replies.TokenChunk, EMPTY) if endpoint.streams else (gives,),
    )


def _door(asked: Channel) -> Channel:
    """Where the broker leads what a tenant asks."""
    door = s.door("tenant", asked.address).replace(".tenant.", ".{tenant}.", 1)
    return replace(
        asked, name=f"{asked.name}-door", address=door, why=f"{asked.why}, as the services hear it"
    )


def _keyed(asked: Channel) -> Channel:
    """Where a gateway asks the same, with the API key of whoever asked it."""
    door = s.keyed_door("tenant", asked.address).replace(".tenant.", ".{tenant}.", 1)
    return replace(
        asked,
        name=f"{asked.name}-keyed",
        address=door,
        why=f"{asked.why}, from a gateway with an API key",
        headers=(*asked.headers, s.API_KEY_HEADER),
    )


def _republished(channels: tuple[Channel, ...]) -> Iterator[Channel]:
    """Where the broker passes on what it has stored."""
    for channel in channels:
        spec = stream_of(channel)
        if spec is not None and spec.republish_to:
            moved = spec.republish_to.removesuffix(">") + channel.address[len(spec.republish_from) - 1 :]
            headers = (*channel.headers, *STORED_HEADERS)
            why = f"{channel.name} once it is stored, from the broker"
            yield replace(
                channel, name=f"{channel.name}-stored", address=moved, why=why, headers=headers, stored=True
            )


def _values(bucket: str, name: str, key: str, why: str, *carries: Payload) -> Iterator[Channel]:
    """A kind of key in a bucket, and where its value passes once it is stored, if the bucket tells of it."""
    put = Channel(name, s.bucket_key(bucket, key), carries, why, (s.EXPECTED_SEQUENCE_HEADER,), bucket=bucket)
    yield put
    if any(spec.republished for spec in catalog.BUCKETS if spec.name == bucket):
        told = s.bucket_updates(bucket).removesuffix(">") + key
        why = f"{name} once it is stored, from the broker; no bytes, or the header KV-Operation: it is gone"
        yield replace(put, name=f"{name}-stored", address=told, why=why, headers=STORED_HEADERS, stored=True)


def _held(spell: Callable[..., str]) -> str:
    """Where a command waits for its place in the queue that `spell` spells."""
    return s.held("T", address(spell)).replace(".T.", ".{tenant}.", 1)


STREAMED: tuple[Channel, ...] = (
    Channel(
        "generate", address(s.generate), (commands.Generate,), "one model is to give one answer",
        COMMAND_HEADERS, pulled_by=("agent", "shard_stage"),
    ),
    Channel(
        "gather", address(s.gather), (commands.Gather,), "an ensemble is to be asked and decided",
        COMMAND_HEADERS, pulled_by=("aggregator",),
    ),
    Channel(
        "summarize", address(s.summarize), (commands.Summarize,), "a request is to go along a chain",
        COMMAND_HEADERS, pulled_by=("summarizer",),
    ),
    Channel(
        "held-generate", _held(s.generate), (commands.Generate,), "batch work of a tenant waits for its turn",
        COMMAND_HEADERS,
    ),
    Channel(
        "held-gather", _held(s.gather), (commands.Gather,), "batch work of a tenant waits for its turn",
        COMMAND_HEADERS,
    ),
    Channel(
        "held-summarize", _held(s.summarize), (commands.Summarize,),
        "batch work of a tenant waits for its turn", COMMAND_HEADERS,
    ),
    Channel(
        "answer", address(s.answer), (replies.Answer,), "what one agent made of one task", (s.TRACE_HEADER,)
    ),
    Channel("result", address(s.result), (replies.Result,), "the one result of a request", (s.TRACE_HEADER,)),
    Channel("token", address(s.token), (replies.TokenChunk,), "text while it is generated"),
    Channel("stage", address(s.stage), (STAGE_ITEMS,), "hidden states and tokens for one stage"),
    Channel(
        "event", address(s.event), EVENTS, "facts: what happened",
        (s.MESSAGE_ID_HEADER,), pulled_by=("metrics",),
    ),
    Channel(
        "dead", address(s.dead), (DEAD_LETTER,), "what a service could not work on",
        (s.REASON_HEADER, s.TRACE_HEADER),
    ),
    Channel(
        "max-deliveries", s.MAX_DELIVERIES_ADVISORIES.removesuffix(">") + "{stream}.{consumer}", (ADVISORY,),
        "the broker has given a message up", pulled_by=("router",),
    ),
    Channel("canary", s.CANARY, (CANARY,), "from the supervisor: while it is stored, the broker stores"),
)  # fmt: skip
"""What is kept in a stream."""

SIGNALS: tuple[Channel, ...] = (
    Channel("cancel-signal", address(s.cancel_signal), (EMPTY,), "nobody waits for the request any more"),
    Channel(
        "count", address(s.count_tokens), (commands.CountTokens,), "how many tokens a prompt has",
        replies=(replies.TokenCount,),
    ),
    Channel(
        "tokenizer", address(s.tokenizer), (commands.Tokenize,), "tokens of a text, text of tokens",
        replies=(replies.Tokenized,),
    ),
    Channel(
        "stage-signal", address(s.stage_signal), (StageBeat, PROBE),
        "heartbeats of stages; under the number 0, which no pipeline has, probes",
    ),
    Channel(
        "join", address(s.join), (joining.Join,), "whoever holds an invite says the key that it has made",
        replies=(joining.Joined,),
    ),
    Channel(
        "enrol", address(s.enrol), (joining.Enrol,), "a host that has joined tells of its processes",
        replies=(joining.Enrolled,),
    ),
    Channel(
        "blob", address(s.blob), (model_store.ReadRange,), "bytes of a file of a model", replies=(FILE_RANGE,)
    ),
    Channel(
        "store-order", address(s.store_order), (model_store.ManageStore,),
        "a store hands on what another one is asked", replies=(model_store.StoreReply,),
    ),
    Channel(
        "held-models", address(s.held_models), (model_store.ListHeld,),
        "an agent asks the store of its host which models lie there", replies=(model_store.HeldModels,),
    ),
    Channel(
        "load-order", address(s.load_order), (loading.ManageLoaded,),
        "a router has an agent load or unload a model on demand", replies=(loading.LoadedReply,),
    ),
    Channel(
        "prefix-signal", address(s.prefix_signal),
        (prefixes.OfferTask, prefixes.DeclineTask, prefixes.ClaimTask),
        "an agent offers a task to another one that keeps its beginning; that one claims it, or declines",
        replies=(commands.Generate, EMPTY),
    ),
    Channel("agent-ping", s.AGENT_PING, (EMPTY,), "every agent answers with who it is", replies=(PONG,)),
)  # fmt: skip
"""What passes between services and is kept nowhere."""

STORED_VALUES: tuple[Channel, ...] = (
    *_values(s.NODES_BUCKET, "node", address(s.node_key), "a lease", nodes.NodeLease),
    *_values(
        s.WORKERS_BUCKET, "worker-registration", address(s.worker_key), "an HTTP worker", workers.Worker
    ),
    *_values(s.WORKER_CLAIMS_BUCKET, "worker-claim", address(s.worker_key), "who uses a worker", HOLDER),
    *_values(s.ATTEMPTS_BUCKET, "attempt", address(s.attempt_key), "how a delivery ended", ENDING),
    *_values(s.PIPELINES_BUCKET, "pipeline", address(s.pipeline_key), "a plan", pipelines.PipelinePlan),
    *_values(
        s.RESPONSES_BUCKET, "response", address(s.response_key), "what was asked", responses.ResponseRecord
    ),
    *_values(s.KEY_USES_BUCKET, "key-use", address(s.key_use), "what an API key used", KEY_USE),
    *_values(s.KEY_USES_BUCKET, "key-places", address(s.key_places), "where it has requests", KEY_PLACES),
    *_values(
        s.KEY_USES_BUCKET,
        "key-batch-places",
        address(s.key_batch_places),
        "where it has batch work",
        KEY_PLACES,
    ),
    *_values(s.KEY_USES_BUCKET, "key-requests", address(s.key_requests), "how often it asked", KEY_REQUESTS),
    *_values(s.RETRIES_BUCKET, "retry", address(s.retry_key), "how often it was sent again", RETRIED),
    *_values(s.KEYS_BUCKET, "api-key", address(s.api_key), "a key that opens the gateway", keys.ApiKey),
    *_values(
        s.CORDONS_BUCKET, "host-cordon", address(s.host_cordon_key), "a host that rests", cordons.Cordon
    ),
    *_values(
        s.CORDONS_BUCKET,
        "instance-cordon",
        address(s.instance_cordon_key),
        "an instance that rests",
        cordons.Cordon,
    ),
    *_values(
        s.ENSEMBLES_BUCKET, "ensemble", address(s.ensemble_key), "an ensemble's name", kept.NamedEnsemble
    ),
    *_values(s.FILES_BUCKET, "file", address(s.file_key), "what is told of a file", files.FileRecord),
    *_values(s.FILE_PIECES_BUCKET, "file-piece", address(s.file_piece_key), "a piece of a file", FILE_PIECE),
    *_values(s.BATCHES_BUCKET, "batch", address(s.file_key), "a batch of requests", files.BatchRecord),
    *_values(s.CACHE_BUCKET, "cache", address(s.cache_key), "whose result will do", cache.CacheEntry),
    *_values(s.SCORES_BUCKET, "score", address(s.score_key), "an agent's history", LEARNT),
    *_values(s.SCORES_BUCKET, "topic-score", address(s.topic_score_key), "the same, on one topic", LEARNT),
    *_values(
        s.SCORES_BUCKET, "unlabelled-score", address(s.unlabelled_score_key), "from agreement alone", LEARNT
    ),
    *_values(s.FEEDBACK_BUCKET, "feedback-counted", address(s.feedback_key), "counted feedback", COUNTED),
    *_values(
        s.FEEDBACK_BUCKET,
        "feedback-pending",
        address(s.pending_feedback_key),
        "not counted yet",
        FEEDBACK_UPDATE,
    ),
    *_values(s.TENANTS_BUCKET, "tenant", address(s.tenant_key), "who may ask, and how much", tenants.Tenant),
    *_values(s.HOSTS_BUCKET, "host", address(s.host_key), "a host that has joined", joining.Host),
    *_values(
        s.STORED_MODELS_BUCKET,
        "stored-model",
        address(s.stored_model_key),
        "a model of the store",
        model_store.StoredModel,
    ),
    *_values(
        s.MODEL_FILES_BUCKET,
        "model-file",
        address(s.model_file_key),
        "the chunks of a file",
        model_store.FileChunks,
    ),
    *_values(
        s.MODEL_FILES_BUCKET,
        "other-model-file",
        address(s.other_model_file_key),
        "the chunks of a file, as a store says that contradicts the one before it",
        model_store.FileChunks,
    ),
    *_values(
        s.MODEL_COPIES_BUCKET,
        "model-copy",
        address(s.model_copy_key),
        "who holds a file",
        model_store.FileCopy,
    ),
    *_values(
        s.MODEL_FETCHES_BUCKET,
        "model-fetch",
        address(s.model_file_key),
        "who fetches a file from outside",
        model_store.FetchClaim,
    ),
    *_values(s.INVITES_BUCKET, "invite-entry", address(s.invite_key), "who may join, once", joining.Invite),
)
"""The keys of buckets. A value is put by publishing it on its subject."""

ASKED: tuple[Channel, ...] = tuple(map(_endpoint, catalog.ENDPOINTS))
"""What clients ask."""

CHANNELS: tuple[Channel, ...] = (
    *ASKED,
    *map(_door, ASKED),
    *(_keyed(asked) for asked in ASKED if asked.address in catalog.KEYED),
    *STREAMED,
    *_republished(STREAMED),
    *SIGNALS,
    *STORED_VALUES,
)
