"""What comes back: answers of models, decisions of strategies, the one result of a request."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from operator import not_
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from schemas.commands import AnswerKind, Command, Gather, Generate, Summarize
from schemas.ensembles.effort import AutoChoice, Cascade, Confidence
from schemas.ensembles.named import Ensemble
from schemas.ensembles.receipts import Digest, Receipt
from schemas.ensembles.scores import AgentAgreement, Score, UnlabelledScore
from schemas.errors import ChoirError, ErrorBody
from schemas.message import Message, Name, OwnedId, RequestId, Struct, Topic, is_none
from schemas.nodes.lease import NodeLease, OnDemand
from schemas.pipelines.plan import PipelineState, PipelineSummary
from schemas.requests.chat import ToolCall
from schemas.subjects import bare_id, encode_token

FinishReason = Literal["stop", "length", "cancelled", "error"]
Topology = Literal["single", "ensemble", "chain"]
CacheUse = Literal["miss", "hit", "shared"]


class Timings(Struct):
    """Where the time of one task went, in nanoseconds."""

    total_duration_ns: Annotated[int, Field(ge=0)] = 0
    queue_duration_ns: Annotated[int, Field(ge=0)] = 0
    load_duration_ns: Annotated[int, Field(ge=0)] = 0
    prompt_eval_duration_ns: Annotated[int, Field(ge=0)] = 0
    eval_duration_ns: Annotated[int, Field(ge=0)] = 0
    first_token_ns: Annotated[int, Field(ge=0)] = 0


class Embeddings(Struct):
    """One vector of `dimensions` numbers for each text: 32-bit floats, little-endian, in base64."""

    dimensions: Annotated[int, Field(ge=1)]
    vectors: tuple[str, ...]

    @classmethod
    def of(cls, vectors: Iterable[Iterable[float]]) -> Self:
        """From numbers; all vectors are of one length."""
        rows = [tuple(vector) for vector in vectors]
        packed = (struct.pack(f"<{len(row)}f", *row) for row in rows)
        return cls(
            dimensions=len(rows[0]), vectors=tuple(base64.b64encode(row).decode("ascii") for row in packed)
        )

    @property
    def numbers(self) -> tuple[tuple[float, ...], ...]:
        """The vectors as numbers."""
        rows = map(base64.b64decode, self.vectors)
        return tuple(struct.unpack(f"<{len(row) // 4}f", row) for row in rows)


class Sample(Struct):
    """One of several texts that were generated for one task."""

    text: str = ""
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason
    generated_tokens: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()


class Answer(Message):
    """What one agent made of one task: a text, or the typed reason why there is none.

    `thinking` is what the model wrote before it answered, `tool_calls` the tools that it wants called:
    neither is in `text`. `samples` are the further texts where `n` were asked for; `generated_tokens` counts
    those of all. `prompt_logprobs` has an entry for each token of the prompt, like those of `logprobs`; the
    first has no `logprob`. `embeddings` are there instead of a text where vectors were asked for.
    `stop_string` is the one of the request's that ended the text, if one did and that is known.
    `prompt_tokens_reused` of the prompt's tokens were in the cache of the model already; `prompt_tokens_cut`
    are none of them: tokens at the ends of texts that were too long for a vector, and were not read.

    `option_probabilities` is how probable the agent held each option of a closed question, by its letter,
    as the aggregator read it from `logprobs`. `model_sha256` is that of the model's file, of a split one of
    all parts one after another; null where the agent has no file, or has not read all of it yet.
    """

    request_id: OwnedId
    round: int = 1
    agent: Name
    model: Name
    instance: str
    text: str = ""
    finish_reason: FinishReason
    prompt_tokens: int = 0
    prompt_tokens_reused: Annotated[int, Field(ge=0, exclude_if=not_)] = 0
    prompt_tokens_cut: Annotated[int, Field(ge=0, exclude_if=not_)] = 0
    generated_tokens: int = 0
    timings: Timings = Timings()
    logprobs: tuple[dict[str, Any], ...] = ()
    option_probabilities: dict[str, float] | None = None
    chunks: int = 0
    error: ErrorBody | None = None
    thinking: str | None = None
    tool_calls: Annotated[tuple[ToolCall, ...], Field(exclude_if=not_)] = ()
    samples: Annotated[tuple[Sample, ...], Field(exclude_if=not_)] = ()
    prompt_logprobs: Annotated[tuple[dict[str, Any], ...], Field(exclude_if=not_)] = ()
    embeddings: Embeddings | None = None
    stop_string: Annotated[str | None, Field(exclude_if=is_none)] = None
    model_sha256: Annotated[Digest | None, Field(exclude_if=is_none)] = None

    @classmethod
    def failed(cls, command: Generate, error: ChoirError, instance: str) -> Answer:
        """The answer to a task that ended in an error."""
        return cls(
            request_id=command.request_id,
            round=command.round,
            agent=command.agent,
            model=command.model,
            instance=instance,
            finish_reason="error",
            error=error.body(command.request_id),
        )

    @property
    def task_id(self) -> str:
        """`<request>.<round>.<agent>`, with the agent's name as a subject token."""
        return f"{self.request_id}.{self.round}.{encode_token(self.agent)}"


class Vote(Struct):
    """One agent's part in a decision. `answer` is None if its text could not be read: it abstains."""

    agent: Name
    answer: str | None = None
    weight: float


class Decision(Message):
    """What one strategy makes of a set of answers.

    `share` is the winner's part of all weight that was cast, `margin` its lead over the runner-up
    in the same unit. `scores` has the weight of each normalised answer. `note` says what the strategy did
    without, if it had not all that it needs. `confidence` is there where a request says how sure it must be.
    """

    strategy: Name
    answer: str | None = None
    text: str | None = None
    share: float
    margin: float
    tie: bool
    votes: tuple[Vote, ...]
    scores: dict[str, float]
    abstained: tuple[str, ...] = ()
    note: str | None = None
    confidence: Annotated[Confidence | None, Field(exclude_if=is_none)] = None


class ChainStep(Struct):
    """What one peer of a chain did, and what lay between it and the others. Durations are in nanoseconds.

    A text that was too long for the peer was summarised part by part: `parts` are the answers for these,
    in order, and `tasks` counts them and the last one. Token counts and `timings` are sums over all tasks,
    each duration measured by the clock of the agent that did it; `tokens_per_s` is generated tokens by
    evaluation time.

    `round_trip_ns` is how long the step took for the summarizer that asked: from the first task that it
    stored until the last answer was there, by its own clock; null if another summarizer began the step and
    died. `ping_ns` is a measured round trip between summarizer and agent through the broker, by the
    summarizer's clock; null if the agent did not answer one. `network_latency_ns` is
    the estimated one-way latency from the peer before: half the sum of both round trips. One clock measures
    both; each round trip is assumed to take as long there as back.
    """

    agent: Name
    model: Name
    instance: str
    tasks: Annotated[int, Field(ge=1)] = 1
    prompt_tokens: int = 0
    generated_tokens: int = 0
    timings: Timings = Timings()
    tokens_per_s: float | None = None
    round_trip_ns: Annotated[int, Field(ge=0)] | None = None
    ping_ns: Annotated[int, Field(ge=0)] | None = None
    network_latency_ns: Annotated[int, Field(ge=0)] | None = None
    parts: tuple[Answer, ...] = ()


TOPOLOGIES: dict[type[Message], Topology] = {Generate: "single", Gather: "ensemble", Summarize: "chain"}
"""The way through the mesh that begins with a command."""


class Result(Message):
    """The one final outcome of a request.

    `missing` are members of an ensemble that were asked and had not answered when it was decided;
    `answer_kind` and `choices` say how the answers were read, `topic` what the question was about.
    `further_answers` are those of other rounds than the first, if the strategies needed any. Of a chain
    `answers` are what each peer wrote, in order, and `steps` how it came about; of a chain that failed those
    that there were. `tool_calls` are those of the answer that is the result's.

    For a client that takes an equal request's result `cache` says what it got: a `miss` is its own, a `hit`
    was there already, and one that was `shared` was in work. `cached_from` is the request that it was of.
    `cascade` says whom an ensemble with an `effort` asked, and whom not. An `undecided` result has no text,
    but the answers and the decisions. `auto` is the way that was taken where the strategy `auto` chose one:
    then only the members that it asked have answers, and none of the others are `missing`. `receipt` is there
    where one was asked for.
    """

    kind: Literal["result"] = "result"
    request_id: OwnedId
    fingerprint: str
    topology: Topology
    text: str | None = None
    error: ErrorBody | None = None
    answers: tuple[Answer, ...] = ()
    decisions: tuple[Decision, ...] = ()
    missing: tuple[str, ...] = ()
    further_answers: tuple[Answer, ...] = ()
    topic: Topic | None = None
    steps: tuple[ChainStep, ...] = ()
    answer_kind: AnswerKind = "auto"
    choices: tuple[str, ...] = ()
    tool_calls: Annotated[tuple[ToolCall, ...], Field(exclude_if=not_)] = ()
    accepted_at_s: float
    completed_at_s: float
    cache: Annotated[CacheUse | None, Field(exclude_if=is_none)] = None
    cached_from: Annotated[OwnedId | None, Field(exclude_if=is_none)] = None
    cascade: Annotated[Cascade | None, Field(exclude_if=is_none)] = None
    auto: Annotated[AutoChoice | None, Field(exclude_if=is_none)] = None
    receipt: Annotated[Receipt | None, Field(exclude_if=is_none)] = None

    @classmethod
    def failed(
        cls, command: Command, error: ChoirError, at_s: float, answers: tuple[Answer, ...] = ()
    ) -> Result:
        """The result of a request that ended in an error at `at_s`, after these `answers`."""
        return cls(
            request_id=command.request_id,
            fingerprint=command.fingerprint,
            topology=TOPOLOGIES[type(command)],
            error=error.body(command.request_id),
            answers=answers,
            accepted_at_s=command.accepted_at_s,
            completed_at_s=at_s,
        )

    @classmethod
    def unreadable(cls, request_id: str, error: ChoirError, at_s: float) -> Result:
        """The result of a request of which nothing is known but its id: its command cannot be read."""
        return cls(
            request_id=request_id,
            fingerprint="",
            topology="single",
            error=error.body(request_id),
            accepted_at_s=at_s,
            completed_at_s=at_s,
        )

    def standing_for(self, request_id: str, cache: CacheUse) -> Result:
        """The same as the result of an equal request."""
        return self.model_copy(
            update={
                "request_id": request_id,
                "cache": cache,
                "cached_from": self.cached_from or bare_id(self.request_id),
            }
        )

    def for_client(self) -> Result:
        """The same as its client knows it: under the id that the client gave it."""
        own = bare_id(self.request_id)
        if own == self.request_id:
            return self
        steps = tuple(
            step.model_copy(update={"parts": _for_client(step.parts)}) if step.parts else step
            for step in self.steps
        )
        return self.model_copy(
            update={
                "request_id": own,
                "error": _error_for_client(self.error),
                "answers": _for_client(self.answers),
                "further_answers": _for_client(self.further_answers),
                "steps": steps,
            }
        )


def _for_client(answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
    return tuple(
        answer.model_copy(
            update={"request_id": bare_id(answer.request_id), "error": _error_for_client(answer.error)}
        )
        for answer in answers
    )


def _error_for_client(error: ErrorBody | None) -> ErrorBody | None:
    if error is None or error.request_id is None:
        return error
    return error.model_copy(update={"request_id": bare_id(error.request_id)})


class TokenChunk(Message):
    """A piece of an answer's text while it is being generated.

    `index` counts the chunks of one agent from 0; `sequence` is the chunk's number in the TOKENS
    stream, filled in on the way to the client. The last chunk of an agent has `done` set.

    A task that is begun again, because the agent that had it died, has its text generated anew, and the new
    one may be another: its chunks count from 0 again, under a higher `attempt` (by how much says nothing).
    Whoever has chunks of a lower attempt forgets them. `restarted` is for users of the Python client, which
    fills it in: what came of this agent before is void, and its text begins with this chunk.

    A chunk has a piece of the answer's `text`, of its `thinking`, or whole `tool_calls`. `sample` says of
    which of several texts it is a piece, from 0. `logprobs` are those of the chunk's tokens, if asked for.
    With `cache` (`shared`) it is a piece of an equal request's text, as `Result` says.
    """

    kind: Literal["token"] = "token"
    request_id: OwnedId
    agent: Name
    index: Annotated[int, Field(ge=0)]
    text: str
    done: bool = False
    attempt: Annotated[int, Field(ge=1)] = 1
    sequence: int | None = None
    thinking: str | None = None
    tool_calls: Annotated[tuple[ToolCall, ...], Field(exclude_if=not_)] = ()
    sample: Annotated[int, Field(ge=0, exclude_if=not_)] = 0
    logprobs: Annotated[tuple[dict[str, Any], ...], Field(exclude_if=not_)] = ()
    restarted: Annotated[bool, Field(exclude=True)] = False
    cache: Annotated[CacheUse | None, Field(exclude_if=is_none)] = None


class Accepted(Message):
    """A request has been stored durably; its result can be fetched."""

    request_id: RequestId


class Cancelled(Message):
    """What a cancellation led to: `cancelled` is False if the request already had a result."""

    request_id: RequestId
    cancelled: bool


class FeedbackCounted(Message):
    """Which agents' histories a feedback has changed."""

    request_id: RequestId
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    already_counted: bool = False


class ScoresReply(Message):
    """All that the mesh has learnt of its agents; `reset` if it has been forgotten since."""

    accuracy: tuple[Score, ...]
    agreement: tuple[AgentAgreement, ...]
    unlabelled: tuple[UnlabelledScore, ...]
    reset: bool = False


class TokenCount(Message):
    """How many tokens a prompt has, and how many the model's context holds."""

    prompt_tokens: int
    context_tokens: int


class TokenizerInfo(Struct):
    """A model's tokenizer: the texts of its control tokens, and its chat template, as far as it has any."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    chat_template: str | None = None


class Tokenized(Message):
    """The `tokens` of what was given, or the `text` of tokens, or what is known of the `tokenizer`."""

    model: Name
    tokens: tuple[int, ...] | None = None
    text: str | None = None
    tokenizer: TokenizerInfo | None = None
    context_tokens: int


class ModelSummary(Struct):
    """A model of the mesh and who serves it. File, size and quantisation are those of the first agent that
    has a file of it, `capabilities` what each of its agents can do. `identity` changes when what is served
    under the name does, as far as agents know that. `on_demand` is there if all of its agents load it when it
    is asked for, and says how the one has it that has most of it. `repository` is that of the hub that it
    comes from."""

    name: Name
    agents: tuple[str, ...]
    slots: int
    busy: int
    context_tokens: int | None = None
    parameters: int | None = None
    file: str | None = None
    size_bytes: int | None = None
    quantisation: str | None = None
    tokens_per_s: float | None = None
    description: str | None = None
    capabilities: tuple[str, ...] = ()
    identity: Annotated[str | None, Field(exclude_if=is_none)] = None
    on_demand: Annotated[OnDemand | None, Field(exclude_if=is_none)] = None
    repository: Annotated[str | None, Field(exclude_if=is_none)] = None


class NodesReply(Message):
    """All live service instances; `left_out` counts those for which the reply had no room."""

    nodes: tuple[NodeLease, ...]
    left_out: int | None = None


class ModelsReply(Message):
    """All models that live agents serve, all pipelines, also those that cannot be asked at present, and the
    ensembles that have a name of their own."""

    models: tuple[ModelSummary, ...]
    pipelines: tuple[PipelineSummary, ...] = ()
    ensembles: Annotated[tuple[Ensemble, ...], Field(exclude_if=not_)] = ()


class ModelQueue(Struct):
    """The queue of one model: how many `Generate` commands wait for an agent, and how many agents have in
    work. One whose agent has died is in work until another agent gets it."""

    waiting: Annotated[int, Field(ge=0)] = 0
    in_work: Annotated[int, Field(ge=0)] = 0


class StatusReply(Message):
    """The mesh at a glance. `queued` counts commands that are stored and not yet done; `pipelines` has the
    state of each by its model; `queues` has the queue of each model that is served, and of any other for
    which something waits, not older than a few seconds. It is empty where nobody knows: of an older router,
    or of a broker that does not say.

    A tenant that operates nothing is told of its own: `queued` are its requests in flight, `results` is 0,
    and `queues` is empty, for a queue has the commands of all tenants."""

    services: dict[str, int]
    models: tuple[str, ...]
    slots: int
    busy: int
    queued: int
    results: int
    problems: tuple[str, ...]
    pipelines: dict[str, PipelineState] = Field(default_factory=dict)
    queues: dict[str, ModelQueue] = Field(default_factory=dict)


class ErrorReply(Message):
    """A reply that says why there is no other."""

    kind: Literal["error"] = "error"
    error: ErrorBody
