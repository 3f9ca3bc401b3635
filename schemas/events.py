"""Facts in the past tense: everything that happened, one message each, for whoever wants to know.

No prompt and no answer is in an event. Durations are in nanoseconds, times in seconds since the epoch.
A duration was measured by one clock, that of the event's host, unless its description says otherwise; the
difference of two `at_s` is across clocks where the two `host` differ.

A request's life, each fact with the service that tells it:

    request_accepted (router) -> task_queued (router, aggregator) -> task_pulled -> task_first_token
    -> task_completed (agent) -> request_completed (whoever stored the result) -> request_replied (router)

An ensemble has gather_pulled after request_accepted, and its decision_made and gather_completed before
request_completed; a chain has request_summarised there. A request that is answered by the result of an equal
one has request_shared, and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from schemas.ensembles.effort import Effort
from schemas.errors import ErrorBody
from schemas.message import Message, OwnedId
from schemas.nodes.lease import Gpu
from schemas.replies import CacheUse, FinishReason, Timings, Topology
from schemas.subjects import Priority

Nanoseconds = Annotated[int, Field(ge=0)]


class Event(Message):
    """What all events carry; `at_s` is of the clock of `host`.

    `trace_id` and `span_id` are W3C trace context where there is one: all events of a request share the
    trace; a span is one service's work on the request, and `parent_span_id` the work that asked for it.
    `tenant` is whose request it is; what is of no request has none, and what is older than tenants neither.
    """

    kind: str
    event_id: str
    at_s: float
    service: str
    instance: str
    host: str | None = None
    request_id: OwnedId | None = None
    task_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    tenant: str | None = None


class ServiceStarted(Event):
    """A service instance is ready for work."""

    kind: Literal["service_started"] = "service_started"
    pid: int


class ServiceStopped(Event):
    """A service instance has drained its work and ends."""

    kind: Literal["service_stopped"] = "service_stopped"


class NodeSampled(Event):
    """What a service instance and its host look like now.

    `cpu_percent` is of one core, `memory_used_bytes` the process's own. `queued` counts all commands that
    wait or are in work; only the router knows it. `broker_rtt_ns` is the round trip of a ping to the
    broker, None if it has not come back. `traces_ignored` counts malformed traceparents, `events_dropped`
    events that could not be sent, both since the instance started.
    """

    kind: Literal["node_sampled"] = "node_sampled"
    cpu_percent: float
    memory_used_bytes: int
    host_memory_free_bytes: int
    load_average: float
    gpus: tuple[Gpu, ...] = ()
    slots: int = 0
    busy: int = 0
    queued: int | None = None
    broker_rtt_ns: Nanoseconds | None = None
    traces_ignored: int = 0
    events_dropped: int = 0


class RequestAccepted(Event):
    """A request's one command has been stored, `admit_duration_ns` after it came to the router."""

    kind: Literal["request_accepted"] = "request_accepted"
    topology: Topology
    models: tuple[str, ...]
    strategies: tuple[str, ...] = ()
    prompt_bytes: int
    priority: Priority = "interactive"
    timeout_s: float | None = None
    admit_duration_ns: Nanoseconds = 0


class RequestRefused(Event):
    """A request was refused at admission, and nothing was stored."""

    kind: Literal["request_refused"] = "request_refused"
    error: ErrorBody


class RequestCompleted(Event):
    """The one result of a request has been stored, by whoever published this.

    `total_duration_ns` is the time since acceptance, across clocks if this is another host than the router's;
    `store_duration_ns` what the broker took to store it. Token counts are of all answers together.
    """

    kind: Literal["request_completed"] = "request_completed"
    topology: Topology
    answered: int
    prompt_tokens: int
    generated_tokens: int
    total_duration_ns: Nanoseconds
    store_duration_ns: Nanoseconds = 0
    error: ErrorBody | None = None


class RequestReplied(Event):
    """A result was handed to the client that waited for it.

    `total_duration_ns` is how long that client waited, from its message's arrival at the router.
    """

    kind: Literal["request_replied"] = "request_replied"
    total_duration_ns: int
    error: ErrorBody | None = None
    endpoint: Literal["ask", "fetch"] = "ask"


class RequestCancelled(Event):
    """A client's cancellation came before any other result."""

    kind: Literal["request_cancelled"] = "request_cancelled"


class RequestShared(Event):
    """A request was answered by the result of an equal one, `cached_from`: nothing was generated for it.

    With `hit` that result was there already, at the router or in a gateway's memory; `shared`, it was in
    work. `total_duration_ns` is how long the client waited, from its message's arrival at whoever tells this.
    """

    kind: Literal["request_shared"] = "request_shared"
    topology: Topology
    models: tuple[str, ...]
    cache: CacheUse
    cached_from: OwnedId
    total_duration_ns: Nanoseconds


class RequestSummarised(Event):
    """A summarizer has made one text of an answer.

    `pieces` is how many parts a long text was split into, `tasks` how many generations that took, `delivery`
    counts from 1. `queue_duration_ns` is as in `TaskPulled`; token counts are of its own generations.
    """

    kind: Literal["request_summarised"] = "request_summarised"
    model: str
    pieces: int = 1
    tasks: int = 1
    delivery: int = 1
    prompt_tokens: int = 0
    generated_tokens: int = 0
    queue_duration_ns: Nanoseconds = 0
    total_duration_ns: Nanoseconds
    error: ErrorBody | None = None


class TaskQueued(Event):
    """A generation has been stored for the agents of `model`; `store_duration_ns` is what the broker took."""

    kind: Literal["task_queued"] = "task_queued"
    model: str
    round: int = 1
    priority: Priority = "interactive"
    store_duration_ns: Nanoseconds = 0


class TaskPulled(Event):
    """An agent has taken a task from the queue; `delivery` counts from 1, more than 1 is a redelivery.

    `queue_duration_ns` is the time since the broker stored the command, by the broker's clock and the
    agent's; `waiting` is how many more commands the broker had for this model and class.
    """

    kind: Literal["task_pulled"] = "task_pulled"
    model: str
    delivery: int
    queue_duration_ns: int
    round: int = 1
    waiting: int = 0


class TaskFirstToken(Event):
    """A model has generated the first token of a task, `first_token_ns` after it was handed to the backend.

    Told with the task's outcome; `at_s` is when it happened.
    """

    kind: Literal["task_first_token"] = "task_first_token"
    model: str
    first_token_ns: Nanoseconds
    round: int = 1


class TaskCompleted(Event):
    """An agent's answer has been stored.

    `queue_duration_ns` is as in `TaskPulled`; `timings.total_duration_ns` begins when the task was taken.
    `slot_duration_ns` of it was spent waiting for a place in the backend's batch, and afterwards the broker
    took `store_duration_ns`. `tokens_per_s` is generated tokens over the time of evaluation. `topology` is
    the request's, unknown for a task that ended before anybody took it.
    """

    kind: Literal["task_completed"] = "task_completed"
    model: str
    finish_reason: FinishReason
    prompt_tokens: int
    generated_tokens: int
    timings: Timings
    error: ErrorBody | None = None
    round: int = 1
    delivery: int = 1
    tokens_per_s: float | None = None
    slot_duration_ns: Nanoseconds = 0
    store_duration_ns: Nanoseconds = 0
    queue_duration_ns: Nanoseconds = 0
    topology: Topology | None = None


class TaskCancelled(Event):
    """An agent has stopped a task, `total_duration_ns` after it was taken, because nobody waits for it."""

    kind: Literal["task_cancelled"] = "task_cancelled"
    model: str
    total_duration_ns: Nanoseconds
    round: int = 1


class TaskRetried(Event):
    """A command went back to the queue, to come again after `delay_s`."""

    kind: Literal["task_retried"] = "task_retried"
    delivery: int
    error: ErrorBody
    delay_s: float = 0.0


class GatherPulled(Event):
    """An aggregator has taken an ensemble from the queue; the fields are those of `TaskPulled`."""

    kind: Literal["gather_pulled"] = "gather_pulled"
    members: tuple[str, ...]
    delivery: int
    queue_duration_ns: Nanoseconds
    waiting: int = 0


class GatherCompleted(Event):
    """An aggregator is done with an ensemble.

    `collect_duration_ns` is from its pull to the last answer that it waited for, `decide_duration_ns` what
    the strategies took, `store_duration_ns` what the broker took to store the result. `answered` counts the
    last round's answers, errors among them; `missing` the members without one. With an `effort` members were
    asked in `waves`, and `saved_calls`, `saved_tokens` and `bound` are those of `Cascade`.
    """

    kind: Literal["gather_completed"] = "gather_completed"
    rounds: int = 1
    answered: int
    missing: int
    collect_duration_ns: Nanoseconds
    decide_duration_ns: Nanoseconds
    store_duration_ns: Nanoseconds
    effort: Effort | None = None
    waves: int = 1
    saved_calls: int = 0
    saved_tokens: int = 0
    bound: float | None = None


class DecisionMade(Event):
    """A strategy has decided; `confidence` where the request says how sure it must be."""

    kind: Literal["decision_made"] = "decision_made"
    strategy: str
    agents: int
    abstained: int
    missing: int
    share: float
    margin: float
    tie: bool
    rounds: int = 1
    confidence: float | None = None


class StageStepped(Event):
    """A stage of a pipeline has computed: one step, or `steps` of them told together.

    `batch_size` is the sequences in a step and `tokens` their tokens (sums over the steps, as all durations
    are). `compute_ns` was spent in the model; `hop_ns` is from the previous stage's sending to the arrival
    here, by the clocks of both; `waiting_ns` is how long the stage had nothing to compute before (its
    bubble). `requests` are those whose tokens were among them.
    """

    kind: Literal["stage_stepped"] = "stage_stepped"
    pipeline: str
    stage: Annotated[int, Field(ge=0)]
    epoch: int
    batch_size: int
    tokens: int
    compute_ns: Nanoseconds
    hop_ns: Nanoseconds
    waiting_ns: Nanoseconds
    steps: Annotated[int, Field(ge=1)] = 1
    requests: tuple[OwnedId, ...] = ()


class CutMoved(Event):
    """The cut of a running pipeline was moved, as its stages had measured: from this epoch on they have other
    layers.

    `layers_before` and `layers` count those of each stage. The slowest stage took `slowest_ms` of a step with
    `rows` rows (of a row, where that is None), and is to take `predicted_ms`; `gain` is what is expected in
    tokens per second, 0.1 for a tenth. There is no other move for `rest_s` seconds. The move was taken to
    cost `lost_s`, with `live_tokens` of texts in work that are read again, and to spare `gained_s`.
    """

    kind: Literal["cut_moved"] = "cut_moved"
    pipeline: str
    epoch: int
    layers_before: tuple[int, ...]
    layers: tuple[int, ...]
    rows: int | None = None
    slowest_ms: float
    predicted_ms: float
    gain: float
    rest_s: float
    live_tokens: int | None = None
    lost_s: float | None = None
    gained_s: float | None = None


class FeedbackReceived(Event):
    """A client has said what was right: which agents were, and which strategies' decisions."""

    kind: Literal["feedback_received"] = "feedback_received"
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    strategies_right: tuple[str, ...] = ()
    strategies_wrong: tuple[str, ...] = ()


class MessageDied(Event):
    """A message could not be worked on and lies in DEAD."""

    kind: Literal["message_died"] = "message_died"
    error: ErrorBody


class WorkerChanged(Event):
    """An external worker was registered, changed or removed, by the tenant of the event.

    `model` is its name in the mesh: whose prompts go to `url` from now on. `instead_of` is where they went
    before, if another server was registered under this id. `shares` says that it was meant to take a part of
    a model that agents serve by themselves.
    """

    kind: Literal["worker_changed"] = "worker_changed"
    action: Literal["add", "cordon", "uncordon", "remove"]
    worker: str
    model: str | None = None
    url: str | None = None
    instead_of: str | None = None
    shares: bool = False


class MeshChanged(Event):
    """Somebody who operates the mesh has changed something of it, or has tried: the tenant of the event.

    It was asked at `endpoint` (`choir.keys`) for an `action` (`revoke`) with a `target`: the id or the name
    of a key, a model, a host, a worker, a tenant. `key` is the id of the API key whose secret was shown to a
    gateway and is right, though it may open too little; None where none was, as for who asks over NATS or
    needs no key. `error` is why nothing was changed.
    """

    kind: Literal["mesh_changed"] = "mesh_changed"
    endpoint: str
    action: str
    target: str | None = None
    key: str | None = None
    error: ErrorBody | None = None


AnyEvent = Annotated[
    ServiceStarted
    | ServiceStopped
    | NodeSampled
    | RequestAccepted
    | RequestRefused
    | RequestCompleted
    | RequestReplied
    | RequestCancelled
    | RequestShared
    | RequestSummarised
    | TaskQueued
    | TaskPulled
    | TaskFirstToken
    | TaskCompleted
    | TaskCancelled
    | TaskRetried
    | GatherPulled
    | GatherCompleted
    | DecisionMade
    | StageStepped
    | CutMoved
    | FeedbackReceived
    | MessageDied
    | WorkerChanged
    | MeshChanged,
    Field(discriminator="kind"),
]

ANY_EVENT: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent, config=ConfigDict(defer_build=True))
