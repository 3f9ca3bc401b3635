"""Imperative messages: somebody is asked to do something, and it may fail.

Times are seconds since the epoch (`..._at_s`); durations name their unit.
"""

from __future__ import annotations

import hashlib
import string
from functools import cached_property, partial
from operator import eq, not_
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from schemas.ensembles.effort import Confidence, Effort, Epsilon
from schemas.message import Act, Message, Name, OwnedId, RequestId, Struct, Topic, field_error, is_none
from schemas.pipelines.plan import Partition
from schemas.requests.chat import MAX_TOOLS, Tool, ToolChoice, check_tools
from schemas.requests.chat import ChatMessage as ChatMessage
from schemas.requests.origin import Origin, origin_of
from schemas.requests.sampling import Sampling
from schemas.subjects import Priority, encode_token, owner_of

AnswerKind = Literal["auto", "choice", "number", "text"]
Waypoint = Literal["aggregator", "summarizer"]

MAX_MEMBERS = 64
MAX_PEERS = 8
DEFAULT_SUMMARY_PROMPT = "Summarize: {text}"
PLACEHOLDERS = ("text", "question")


def _check_summary_prompt(template: str) -> str:
    """It has a place for the text, and none for what nobody would fill in."""
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise PydanticCustomError(
            "template", "{why}; double the braces that are meant as such", {"why": str(error)}
        ) from error
    for _, name, layout, conversion in fields:
        if name not in PLACEHOLDERS or layout or conversion:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise PydanticCustomError(
                "template",
                "there is no placeholder {name}; known: {known}; double the braces that are meant as such",
                {"name": f"{{{name}}}", "known": known},
            )
    if "text" not in {field[1] for field in fields}:
        raise PydanticCustomError(
            "template", "it has no {place}, the place of what is to be summarised", {"place": "{text}"}
        )
    return template


SummaryPrompt = Annotated[
    str, StringConstraints(min_length=1, max_length=8_192), AfterValidator(_check_summary_prompt)
]


Choice = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
"""One option of a closed question, as it is shown to whoever answers."""


MAX_MESSAGES = 4_096
"""A client's; what services make of them on the way may be one more."""
MAX_PROMPT_TOKENS = 262_144
MAX_INPUTS = 2_048
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Tools = Annotated[tuple[Tool, ...], Field(max_length=MAX_TOOLS, exclude_if=not_)]


ToolsChoice = Annotated[ToolChoice, Field(exclude_if=partial(eq, "auto"))]


class RawPrompt(Struct):
    """A prompt that a model goes on with as it stands, without its chat template: a text, in which control
    tokens are read as such, or token ids, to which nothing is added."""

    text: Annotated[str, StringConstraints(min_length=1)] | None = None
    tokens: (
        Annotated[tuple[TokenId, ...], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPT_TOKENS)]
        | None
    ) = None

    @model_validator(mode="after")
    def _one_of_both(self) -> RawPrompt:
        if (self.text is None) == (self.tokens is None):
            raise field_error("raw", "exactly one of text and tokens must be given")
        return self


class Embed(Struct):
    """Texts of which a model is to give vectors, one each.

    `dimensions` cuts the vectors to so many numbers, for models that were made for it. With `truncate` a text
    that is longer than the model's context loses its end; without it is refused.
    """

    inputs: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1)], ...],
        Field(min_length=1, max_length=MAX_INPUTS),
    ]
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    truncate: bool = False


def _said_last_by_user(messages: tuple[ChatMessage, ...]) -> str:
    said = [message.content for message in messages if message.role == "user"]
    return said[-1] if said else ""


_SAMPLED = {"auto", "best_single", "synthesize_samples"}
_DELIVERY = {
    "request_id", "stream", "timeout_s", "priority", "partition", "cache", "cache_settled", "keep_alive_s"
}  # fmt: skip
_NO_PART_OF_LOTS = {"effort", "epsilon", "min_confidence", "receipt"}

KeepAlive = Annotated[float, Field(ge=-1, le=10_000_000, allow_inf_nan=False)]
"""How long a model that was loaded on demand stays when nobody asks it any more, in seconds; -1 stands for as
long as there is room."""


class Ask(Message):
    """A client's request, on `choir.ask` or `choir.submit`.

    Either `prompt` or `messages` says what is asked; the model may call `tools`, as `tool_choice` says.
    One model can also go on with a `raw` prompt, or `embed` texts. `model` alone asks one model, or the
    ensemble of that name; otherwise the request goes to an ensemble: `models` (all live ones if empty),
    at most `max_agents` of them, decided by each of `strategies` (`majority` if empty). `choices` are the
    options of a closed question, two or more; `answer_kind` says how answers are read before voting;
    `topic` what the question is about (without it the aggregator judges by its words); `samples` how
    often `best_single` asks its agent (as often as there are members if left out), and `auto` the one
    that it may choose; `synthesizer` the model that writes one answer from all for `synthesize` (the best
    agent if left out), `embedder` the one whose vectors `nearest` compares (the first member that
    answered). The result is decided when all members, or `quorum` of them, have answered, or `timeout_s`
    is over. `request_id` is the client's idempotency key: the same request under the same id is one
    request. `partition` says how a pipeline of stages works on a long prompt; without it the pipeline's
    plan says so. With `cache` the result of an equal request of the same tenant will do, of one that is
    still in work too; it is for requests whose answer is the same each time. With `cache_settled` besides
    it has to be there already, and is stored under this request's id before the reply. `effort` spares
    members of an ensemble whose answers are not needed for its decision; `bounded` needs `epsilon`. With
    `min_confidence` an ensemble whose answer is right less probably, as votes and history tell, is
    `undecided`: an error, and all answers are in the result. With `receipt` the result of an ensemble has
    a receipt, by which anybody can decide again. `keep_alive_s` says how long a `model` of the store
    stays loaded afterwards; without it its agent's settings do.

    With `summarize_with` the answer of `model` goes on to these models, one after the other: each
    summarises what the one before it wrote, and the text of the last is the result. `summary_prompt` is
    what each of them is asked: `{text}` stands for what is to be summarised, `{question}` for the last
    thing the user said, and braces that are meant as such are doubled.
    """

    request_id: RequestId | None = None
    prompt: Annotated[str, StringConstraints(min_length=1, pattern=r"\S")] | None = None
    messages: Annotated[tuple[ChatMessage, ...], Field(max_length=MAX_MESSAGES)] = ()
    raw: Annotated[RawPrompt | None, Field(exclude_if=is_none)] = None
    embed: Annotated[Embed | None, Field(exclude_if=is_none)] = None
    tools: Tools = ()
    tool_choice: ToolsChoice = "auto"
    model: Name | None = None
    models: Annotated[tuple[Name, ...], Field(max_length=MAX_MEMBERS)] = ()
    summarize_with: Annotated[tuple[Name, ...], Field(max_length=MAX_PEERS - 1)] = ()
    summary_prompt: SummaryPrompt | None = None
    strategies: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    choices: Annotated[tuple[Choice, ...], Field(max_length=26)] = ()
    answer_kind: AnswerKind = "auto"
    topic: Topic | None = None
    samples: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] | None = None
    synthesizer: Annotated[Name | None, Field(exclude_if=is_none)] = None
    embedder: Annotated[Name | None, Field(exclude_if=is_none)] = None
    max_agents: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] | None = None
    quorum: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] | None = None
    sampling: Sampling = Field(default_factory=Sampling)
    timeout_s: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 60.0
    priority: Priority = "interactive"
    partition: Partition | None = None
    stream: bool = False
    cache: Annotated[bool, Field(exclude_if=not_)] = False
    cache_settled: Annotated[bool, Field(exclude_if=not_)] = False
    effort: Annotated[Effort | None, Field(exclude_if=is_none)] = None
    epsilon: Annotated[Epsilon | None, Field(exclude_if=is_none)] = None
    keep_alive_s: Annotated[KeepAlive | None, Field(exclude_if=is_none)] = None
    min_confidence: Annotated[Confidence | None, Field(exclude_if=is_none)] = None
    receipt: Annotated[bool, Field(exclude_if=not_)] = False

    @model_validator(mode="after")
    def _consistent(self) -> Ask:
        asked = (self.prompt is not None, bool(self.messages), self.raw is not None, self.embed is not None)
        if sum(asked) != 1:
            raise field_error("prompt", "exactly one of prompt, messages, raw and embed must be given")
        self._check_model_alone()
        check_tools(self.tools, self.tool_choice)
        if self.model is not None and (self.models or self.strategies):
            raise field_error(
                "model", "model asks one model, models and strategies ask an ensemble: not both"
            )
        if self.summarize_with and self.model is None:
            raise field_error("summarize_with", "a chain begins with one model: name it in model")
        if self.summary_prompt is not None and not self.summarize_with:
            raise field_error("summary_prompt", "it needs summarize_with: there is nobody to summarise")
        if len(set(self.models)) != len(self.models):
            raise field_error("models", "a model is named twice")
        if len(set(self.strategies)) != len(self.strategies):
            raise field_error("strategies", "a strategy is named twice")
        if len(self.choices) == 1:
            raise field_error("choices", "one option is no choice: give at least 2, or none")
        if len(set(self.choices)) != len(self.choices):
            raise field_error("choices", "an option is named twice")
        if self.samples is not None and not _SAMPLED & set(self.strategies):
            raise field_error(
                "samples", f"only {', '.join(sorted(_SAMPLED))} take samples: name one in strategies"
            )
        if self.synthesizer is not None and "synthesize" not in self.strategies:
            raise field_error("synthesizer", "only synthesize has an answer written: name it in strategies")
        if self.embedder is not None and "nearest" not in self.strategies:
            raise field_error("embedder", "only nearest compares vectors: name it in strategies")
        if (self.effort == "bounded") != (self.epsilon is not None):
            raise field_error("epsilon", "it goes with effort bounded, and effort bounded with it")
        if self.cache_settled and not self.cache:
            raise field_error("cache_settled", "it says which results of others will do: give cache, too")
        return self

    def _check_model_alone(self) -> None:
        """Some things one model does, and no ensemble and no chain."""
        alone = {
            "raw": self.raw is not None,
            "embed": self.embed is not None,
            "sampling.prompt_logprobs": self.sampling.prompt_logprobs,
            "sampling.n": self.sampling.n > 1,
        }
        for field, wanted in alone.items():
            if wanted and (self.model is None or self.summarize_with):
                raise field_error(field, "one model does that: name it in model, and nothing to summarise")
        if self.tools and self.summarize_with:
            raise field_error("tools", "a chain passes texts on, and no calls: leave tools out")
        if self.tools and (self.raw is not None or self.embed is not None):
            raise field_error("tools", "tools are told by a chat template: ask with prompt or messages")
        if self.sampling.prompt_logprobs and self.raw is None:
            raise field_error("sampling.prompt_logprobs", "it scores a given text: give it in raw")
        if self.stream and self.embed is not None:
            raise field_error("stream", "vectors come all at once: leave stream out")

    @property
    def conversation(self) -> tuple[ChatMessage, ...]:
        """What is asked, as chat messages; none of a raw prompt and of texts to embed."""
        if self.prompt is None:
            return self.messages
        return (ChatMessage(role="user", content=self.prompt),)

    @cached_property
    def fingerprint(self) -> str:
        """What makes two asks the same request: everything but the id and how the reply is delivered."""
        return self._hash(_DELIVERY)

    @property
    def lots(self) -> str:
        """What a tie is decided by: what is asked, however many are asked, and however sure they must be."""
        return self._hash(_DELIVERY | _NO_PART_OF_LOTS)

    def _hash(self, without: set[str]) -> str:
        return hashlib.sha256(self.model_dump_json(exclude=without).encode()).hexdigest()[:32]


class Generate(Message):
    """One model is to generate one answer (a *task*): to `messages`, to a `raw` prompt, or the vectors of
    `embed`.

    With an empty `routing_slip` the answer is the request's result; otherwise it is stored as an
    answer, for the first waypoint of the slip to take up.
    """

    request_id: OwnedId
    round: Annotated[int, Field(ge=1)] = 1
    agent: Name
    model: Name
    messages: tuple[ChatMessage, ...] = ()
    raw: RawPrompt | None = None
    embed: Embed | None = None
    tools: Tools = ()
    tool_choice: ToolsChoice = "auto"
    sampling: Sampling
    priority: Priority = "interactive"
    partition: Partition | None = None
    stream: bool = False
    fingerprint: str
    accepted_at_s: float
    deadline_at_s: float
    routing_slip: tuple[Waypoint, ...] = ()
    keep_alive_s: Annotated[KeepAlive | None, Field(exclude_if=is_none)] = None

    @model_validator(mode="after")
    def _one_task(self) -> Generate:
        if (bool(self.messages), self.raw is not None, self.embed is not None).count(True) != 1:
            raise field_error("messages", "exactly one of messages, raw and embed must be given")
        return self

    @property
    def task_id(self) -> str:
        """`<request>.<round>.<agent>`, with the agent's name as a subject token."""
        return f"{self.request_id}.{self.round}.{encode_token(self.agent)}"

    @cached_property
    def origin(self) -> Origin:
        """Whose the prompt is, and how it begins; of a conversation its tools come first."""
        if self.raw is not None:
            text, tokens = self.raw.text, self.raw.tokens
            return origin_of(
                owner_of(self.request_id),
                text.encode() if text is not None else ",".join(map(str, tokens or ())).encode(),
            )
        parts = (*self.tools, *self.messages)
        return origin_of(
            owner_of(self.request_id), b"".join(part.model_dump_json().encode() for part in parts)
        )


class Gather(Message):
    """An aggregator is to ask every member of an ensemble and to decide from their answers.

    With an `effort` it asks no more of them than that needs; `costs` are then what each member costs beside
    the others, such as its parameters (0 where that is not known), and `lots` is what ties are decided by.
    `min_confidence` is how sure its first strategy must be, or the result is the error `undecided`.
    """

    request_id: OwnedId
    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_MEMBERS)]
    strategies: Annotated[tuple[Name, ...], Field(min_length=1)]
    quorum: Annotated[int, Field(ge=1)] | None = None
    choices: tuple[str, ...] = ()
    answer_kind: AnswerKind = "auto"
    topic: Topic | None = None
    samples: Annotated[int, Field(ge=1)] | None = None
    synthesizer: Annotated[Name | None, Field(exclude_if=is_none)] = None
    embedder: Annotated[Name | None, Field(exclude_if=is_none)] = None
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    tools: Tools = ()
    tool_choice: ToolsChoice = "auto"
    sampling: Sampling
    priority: Priority = "interactive"
    partition: Partition | None = None
    stream: bool = False
    fingerprint: str
    accepted_at_s: float
    deadline_at_s: float
    effort: Annotated[Effort | None, Field(exclude_if=is_none)] = None
    epsilon: Annotated[Epsilon | None, Field(exclude_if=is_none)] = None
    costs: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(exclude_if=not_)] = ()
    lots: Annotated[str | None, Field(exclude_if=is_none)] = None
    min_confidence: Annotated[Confidence | None, Field(exclude_if=is_none)] = None
    receipt: Annotated[bool, Field(exclude_if=not_)] = False

    @property
    def question(self) -> str:
        """The last thing that the user said; empty if the user said nothing."""
        return _said_last_by_user(self.messages)

    def generate(self, member: str, round_: int = 1) -> Generate:
        """The command for one member."""
        return Generate(
            request_id=self.request_id,
            round=round_,
            agent=member,
            model=member,
            messages=self.messages,
            tools=self.tools,
            tool_choice=self.tool_choice,
            sampling=self.sampling,
            priority=self.priority,
            partition=self.partition,
            stream=self.stream,
            fingerprint=self.fingerprint,
            accepted_at_s=self.accepted_at_s,
            deadline_at_s=self.deadline_at_s,
            routing_slip=("aggregator",),
        )


class Summarize(Message):
    """A summarizer is to take a request along a chain of peers, and to store what the last one writes.

    `peers` is the routing slip, the models in their order: the first gets `messages`, each further one gets
    `summary_prompt` with what the one before it wrote. A model may stand in it more than once.
    """

    request_id: OwnedId
    peers: Annotated[tuple[Name, ...], Field(min_length=2, max_length=MAX_PEERS)]
    summary_prompt: SummaryPrompt = DEFAULT_SUMMARY_PROMPT
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    sampling: Sampling
    priority: Priority = "interactive"
    partition: Partition | None = None
    stream: bool = False
    fingerprint: str
    accepted_at_s: float
    deadline_at_s: float

    @property
    def question(self) -> str:
        """The last thing that the user said; empty if the user said nothing."""
        return _said_last_by_user(self.messages)

    def generate(
        self,
        step: int,
        messages: tuple[ChatMessage, ...],
        *,
        at_s: float,
        part: str | None = None,
        max_tokens: int | None = None,
    ) -> Generate:
        """The command for the peer of a step (from 1), or for one `part` of a text that is too long for it.

        Every peer samples alike, with one exception: what the form of the result must be (`json_schema`,
        `grammar`) is asked of the last text only. That text alone streams. `at_s` is when it is sent;
        `max_tokens` is where this one task must be shorter.
        """
        last = step == len(self.peers) and part is None
        changed: dict[str, object] = {} if last else {"json_schema": None, "grammar": None}
        if max_tokens is not None:
            changed["max_tokens"] = max_tokens
        model = self.peers[step - 1]
        return Generate(
            request_id=self.request_id,
            round=step,
            agent=model if part is None else part,
            model=model,
            messages=messages,
            sampling=self.sampling.model_copy(update=changed),
            priority=self.priority,
            partition=self.partition if step == 1 else None,
            stream=self.stream and last,
            fingerprint=self.fingerprint,
            accepted_at_s=at_s,
            deadline_at_s=self.deadline_at_s,
            routing_slip=("summarizer",),
        )


Command = Generate | Gather | Summarize
"""What can lie in the queue of work."""


class Fetch(Message):
    """A client wants the result of a request, now or within `wait_s`.

    With `stream` the token chunks stored after `after_sequence` come first: this is how a client
    that lost its connection resumes.
    """

    request_id: RequestId
    wait_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    stream: bool = False
    after_sequence: Annotated[int, Field(ge=0)] = 0


class Cancel(Message):
    """A client does not want a request's result any more."""

    request_id: RequestId


class Feedback(Message):
    """A client says what the right answer to a request was, so that weights can learn.

    Who knows only that an answer is `wrong` says that one instead of the `correct` one: it counts against
    those who gave it, and says nothing of others. `topic` is what the question was about, if the client knows
    better than the result says.
    """

    request_id: RequestId
    correct: Annotated[str, StringConstraints(min_length=1, max_length=4_096)] | None = None
    wrong: Annotated[
        str | None, StringConstraints(min_length=1, max_length=4_096), Field(exclude_if=is_none)
    ] = None
    topic: Topic | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Feedback:
        if (self.correct is None) == (self.wrong is None):
            raise field_error("correct", "say the correct answer, or one that is wrong")
        return self


class ReadScores(Message):
    """A client wants to know what the mesh has learnt of its agents; with `reset` it is forgotten then."""

    reset: bool = False

    def act(self) -> Act | None:
        """As the base class says."""
        return Act("reset", None) if self.reset else None


class CountTokens(Message):
    """An agent is asked how many tokens a prompt has for its model."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    tools: Tools = ()


class Tokenize(Message):
    """A client asks for the tokens of a `text`, or of `messages` with their `tools`, or for the text of
    `tokens`; with none of these what is known of the model's tokenizer.

    `special` reads the names of control tokens in a text as such, and shows them in the text of tokens;
    `bos` puts the beginning-of-sequence token before a text, where the model wants one.
    """

    model: Name
    text: str | None = None
    messages: Annotated[tuple[ChatMessage, ...], Field(max_length=MAX_MESSAGES)] = ()
    tools: Tools = ()
    tokens: Annotated[tuple[TokenId, ...], Field(fail_fast=True, max_length=MAX_PROMPT_TOKENS)] | None = None
    special: bool = True
    bos: bool = False

    @model_validator(mode="after")
    def _one_of_three(self) -> Tokenize:
        if (self.text is not None, bool(self.messages), self.tokens is not None).count(True) > 1:
            raise field_error("text", "one of text, messages and tokens may be given, not several")
        return self
