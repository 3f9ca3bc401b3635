"""The Python client: ask the mesh from any program.

    async with Choir() as mesh:
        result = await mesh.ask("What is the capital of France?", strategies=["majority"])
        print(result.text)

Every wait has a deadline, and every failure is one of the errors in `schemas.errors`. What only operators say
is imported where they say it, so that asking begins sooner.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, Unpack

from schemas import subjects
from schemas.broker import catalog
from schemas.commands import Ask, Cancel, Feedback, Fetch, ReadScores, Tokenize
from schemas.errors import BrokerUnavailable, ChoirError, MeshUnreachable, NotReady
from schemas.message import Message
from schemas.replies import (
    Accepted,
    Answer,
    Cancelled,
    FeedbackCounted,
    ModelsReply,
    ModelSummary,
    NodesReply,
    Result,
    ScoresReply,
    StatusReply,
    TokenChunk,
    Tokenized,
)
from services.chassis.settings import MeshSection
from services.client.bulk.bounded import spread
from services.client.connection import HOW_TO_START, open_connection
from services.client.finding.mesh_url import find_mesh
from services.client.missing_service import nobody_answers
from services.client.reliable_request import PAUSE_S, REPLY_MARGIN_S, SLICE_S, ReliableRequest, Repeats
from services.client.replies import NoReply, ReplyMultiplexer, read
from services.client.request_builder import AskOptions, build, build_ask
from services.client.silence import Silence

if TYPE_CHECKING:
    from types import TracebackType

    from schemas.ensembles.kept import ManageEnsembles, NamedEnsemble
    from schemas.nodes.cordons import Cordon, ManageCordons
    from schemas.nodes.joining import Host, InviteMade, MakeInvite, ManageHosts
    from schemas.nodes.lease import NodeLease
    from schemas.nodes.loading import LoadedAt, ManageLoaded
    from schemas.nodes.model_store import ManageStore, StoreReply
    from schemas.nodes.workers import ManageWorkers, WorkerStatus
    from schemas.pipelines.plan import PipelineSummary, Shard, ShardReply
    from schemas.requests.dead_letters import DeadLettersReply, ManageDeadLetters
    from schemas.requests.keys import ApiKey, ManageKeys
    from schemas.requests.queries import Rows, Scalar
    from schemas.requests.tenants import ManageTenants, Tenant

CALL_PATIENCE_S = 4.0
"""How long a call that only looks, or changes what can be changed again, waits for somebody to answer it."""
PLANNING_S = 20.0
"""How long a router may think about where the stages of a pipeline go, with very many nodes."""
INVITING_S = 20.0
"""The broker takes its accounts anew before there is a reply."""
STORE_S = 15.0
"""A store may have to ask all others."""
LOADING_S = 30.0
"""Longer than a router waits for the agents that load."""
SQL_GRACE_S = 3.0
TOKENIZING_S = 6.0
TRANSIENT = (NoReply, BrokerUnavailable)

ReplyT = TypeVar("ReplyT", bound=Message)


@dataclass(frozen=True, slots=True)
class Batched:
    """What came of one prompt of a batch: its result, or the error instead; `number` counts from 0."""

    number: int
    prompt: str
    result: Result | None = None
    error: ChoirError | None = None


class Choir:
    """A mesh, as a client sees it. Use it as an asynchronous context manager.

    `url` is where the broker is; without it the client looks where `find_mesh` says, unless `section` says
    all of it, with user and password. Opening raises MeshUnreachable if no broker answers. Afterwards a lost
    connection is made again by itself.

    Who asks is the broker's word: the tenant whose account the client is in. A client that is inside the
    mesh, as the gateway is, may ask in the name of any `tenant`, and has an `inbox` prefix of its own.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        name: str = "choir-client",
        section: MeshSection | None = None,
        tenant: str | None = None,
        inbox: str | None = None,
    ) -> None:
        self._url = url
        self._section = section
        self._name = name
        self._tenant = tenant
        self._key: str | None = None
        self._secret: str | None = None
        self._inbox = inbox
        self._replies = ReplyMultiplexer()
        self._silence = Silence()
        self._stack = AsyncExitStack()
        self._open = False

    async def __aenter__(self) -> Choir:
        replies = self._replies
        section = self._section or find_mesh(self._url)
        connection = open_connection(section, self._name, replies.interrupted, replies.refused, self._inbox)
        await replies.start(await self._stack.enter_async_context(connection))
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        await self._stack.aclose()

    def as_tenant(self, tenant: str, key: str | None = None, secret: str | None = None) -> Choir:
        """The same open mesh, in the name of a tenant, and by an API key with the id `key`; only for clients
        that are inside the mesh. The `secret` of the key goes along with what those may not ask by
        themselves."""
        other = copy.copy(self)
        other._tenant, other._key, other._secret = tenant, key, secret
        return other

    async def ask(self, prompt: str | None = None, **options: Unpack[AskOptions]) -> Result:
        """The result of a request; its error is raised.

        `model` asks one model. Otherwise an ensemble answers: `models` (all if empty), decided by each of
        `strategies`. If the router, an agent or the broker dies meanwhile, the same request goes on.
        """
        return await self.result_of(build_ask(prompt, options), new=options.get("request_id") is None)

    async def result_of(self, ask: Ask, *, new: bool = False, repeats: Repeats | None = None) -> Result:
        """The same for a request that is complete, and `new` if nobody has asked under its id before. Where
        its id stands for another request `repeats` says whether that one's result will do."""
        self._check_open()
        request = ReliableRequest(self._replies, ask, self._silence, self._tenant, new=new, repeats=repeats)
        if not ask.stream:
            return await request.result()
        async for reply in request.replies():
            if isinstance(reply, Result):
                result = reply
        return result

    async def embed(
        self,
        model: str,
        inputs: str | Sequence[str],
        *,
        dimensions: int | None = None,
        truncate: bool = False,
        timeout_s: float = 60.0,
        request_id: str | None = None,
    ) -> tuple[tuple[float, ...], ...]:
        """One vector for each text. `dimensions` cuts them, `truncate` cuts texts that are too long."""
        texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        embed = {"inputs": texts, "dimensions": dimensions, "truncate": truncate}
        result = await self.ask(model=model, embed=embed, timeout_s=timeout_s, request_id=request_id)
        embeddings = result.answers[0].embeddings
        return () if embeddings is None else embeddings.numbers

    async def score(
        self,
        model: str,
        prompt: str | Sequence[int],
        *,
        top: int = 1,
        timeout_s: float = 60.0,
        request_id: str | None = None,
    ) -> Answer:
        """How probable a text, or token ids, are: `prompt_logprobs` of each token (the first has no
        `logprob`), and `logprobs` of one token after it, each with the `top` most probable ones in its
        place."""
        raw = {"text": prompt} if isinstance(prompt, str) else {"tokens": tuple(prompt)}
        result = await self.ask(
            model=model,
            raw=raw,
            max_tokens=1,
            logprobs=top,
            prompt_logprobs=True,
            timeout_s=timeout_s,
            request_id=request_id,
        )
        return result.answers[0]

    def ask_stream(
        self, prompt: str | None = None, **options: Unpack[AskOptions]
    ) -> AsyncGenerator[TokenChunk | Result, None]:
        """The text while it is generated, chunk by chunk, then the result; its error is raised.

        After a lost connection the stream goes on where it stopped: no chunk is missing or doubled. If the
        agent died, another one generates the text anew. Where it differs a chunk says `restarted`: what came
        of this `agent` before is void. The texts since then, joined, are the text of the result.
        """
        return self.follow(build_ask(prompt, options, stream=True), new=options.get("request_id") is None)

    def follow(
        self, ask: Ask, *, new: bool = False, repeats: Repeats | None = None
    ) -> AsyncGenerator[TokenChunk | Result, None]:
        """The replies to a request that is complete: chunks if it streams, then the result. `new` and
        `repeats` are as `result_of` has them."""
        self._check_open()
        return ReliableRequest(
            self._replies, ask, self._silence, self._tenant, new=new, repeats=repeats
        ).replies()

    def resume(self, ask: Ask) -> AsyncGenerator[TokenChunk | Result, None]:
        """The replies to a request that was asked before, from its first chunk on; it is not asked again.

        Raises UnknownRequest and ResultEvicted as `fetch` does.
        """
        self._check_open()
        return ReliableRequest(self._replies, ask, self._silence, self._tenant, asked_before=True).replies()

    async def batch(
        self,
        prompts: Iterable[str],
        *,
        max_concurrent: int | None = None,
        key: str | None = None,
        **options: Unpack[AskOptions],
    ) -> AsyncGenerator[Batched, None]:
        """What came of each prompt, as it is done; an error of one does not end the others.

        At most `max_concurrent` are on their way, by default what keeps all slots busy; prompts are taken
        from an iterator as they are needed. With a `key` the request ids are `<key>-<number>`: a batch that
        is run again under its key within a day asks nothing twice. Raises MeshUnreachable.
        """
        room = max_concurrent or 2 * sum(model.slots for model in await self.models())

        async def one(numbered: tuple[int, str]) -> Batched:
            number, prompt = numbered
            own: AskOptions = {"priority": "batch", **options}
            if key is not None:
                own["request_id"] = f"{key}-{number}"
            try:
                return Batched(number, prompt, result=await self.ask(prompt, **own))
            except MeshUnreachable:
                raise
            except ChoirError as error:
                return Batched(number, prompt, error=error)

        async with aclosing(spread(enumerate(prompts), one, lambda: room)) as done:
            async for batched in done:
                yield batched

    async def submit(self, prompt: str | None = None, **options: Unpack[AskOptions]) -> str:
        """Has the request stored and returns its id; `fetch` gives the result later.

        A router is waited for as long as the request may take, `timeout_s`.
        """
        return await self.submit_ask(build_ask(prompt, options))

    async def submit_ask(self, ask: Ask) -> str:
        """The same for a request that is complete."""
        accepted = await self._call(subjects.SUBMIT, ask, Accepted, patience_s=ask.timeout_s)
        return accepted.request_id

    async def fetch(self, request_id: str, wait_s: float = 0.0) -> Result:
        """The result of a request, waiting for it up to `wait_s`; its error is raised.

        Raises NotReady if there is none yet, UnknownRequest if nobody knows of the request.
        """
        end_s = time.monotonic() + wait_s
        while True:
            attempt_s = time.monotonic()
            slice_s = max(0.0, min(SLICE_S, end_s - attempt_s))
            fetch = build(Fetch, {"request_id": request_id, "wait_s": slice_s})
            try:
                left_s = end_s - attempt_s
                return await self._call(
                    subjects.FETCH, fetch, Result, slice_s, transient=TRANSIENT, patience_s=left_s
                )
            except NotReady:
                if time.monotonic() >= end_s:
                    raise
            await asyncio.sleep(attempt_s + PAUSE_S - time.monotonic())

    async def cancel(self, request_id: str) -> bool:
        """Gives up a request; False if it had its result already."""
        cancel = build(Cancel, {"request_id": request_id})
        return (await self._call(subjects.CANCEL, cancel, Cancelled)).cancelled

    async def feedback(
        self,
        request_id: str,
        correct: str | None = None,
        topic: str | None = None,
        *,
        wrong: str | None = None,
    ) -> FeedbackCounted:
        """Says what the right answer was, or which one was `wrong`: the weights of the agents learn."""
        fields = {"request_id": request_id, "correct": correct, "wrong": wrong, "topic": topic}
        feedback = build(Feedback, fields)
        return await self._call(subjects.FEEDBACK, feedback, FeedbackCounted)

    async def scores(self, *, reset: bool = False) -> ScoresReply:
        """What the mesh has learnt of its agents; with `reset` it is forgotten after that."""
        return await self._call(subjects.SCORES, build(ReadScores, {"reset": reset}), ScoresReply)

    async def tokenize(self, request: Tokenize) -> Tokenized:
        """The tokens of a text, the text of tokens, or what is known of a model's tokenizer."""
        return await self._call(subjects.TOKENIZE, request, Tokenized, TOKENIZING_S)

    async def nodes(self) -> tuple[NodeLease, ...]:
        """All live service instances."""
        return (await self._call(subjects.NODES, None, NodesReply)).nodes

    async def models(self) -> tuple[ModelSummary, ...]:
        """All models that can be asked."""
        return (await self._call(subjects.MODELS, None, ModelsReply)).models

    async def offered(self) -> ModelsReply:
        """Everything that can be named as a model, in one reply: models, pipelines, ensembles."""
        return await self._call(subjects.MODELS, None, ModelsReply)

    async def pipelines(self) -> tuple[PipelineSummary, ...]:
        """All models that run in stages over nodes, also those that cannot be asked at present."""
        return (await self._call(subjects.MODELS, None, ModelsReply)).pipelines

    async def workers(self, request: ManageWorkers) -> tuple[WorkerStatus, ...]:
        """The external workers that a request concerns: all for a list, else the one that it changed."""
        from schemas.nodes.workers import WorkersReply

        return (await self._call(subjects.WORKER, request, WorkersReply)).workers

    async def keys(self, request: ManageKeys) -> tuple[ApiKey, ...]:
        """The API keys that a request concerns: all for a list, else the one that it changed."""
        from schemas.requests.keys import KeysReply

        return (await self._call(subjects.KEYS, request, KeysReply)).keys

    async def cordons(self, request: ManageCordons) -> tuple[Cordon, ...]:
        """Hosts and instances that get nothing new: all of them, after the change if one is asked for.

        Raises InvalidRequest with the names that are there, for one that is not.
        """
        from schemas.nodes.cordons import CordonsReply

        return (await self._call(subjects.CORDON, request, CordonsReply)).cordons

    async def ensembles(self, request: ManageEnsembles) -> tuple[NamedEnsemble, ...]:
        """The ensembles with a name that a request concerns: all for a list, else the one that was added, or
        is gone now.

        Raises InvalidRequest if a choir.toml says otherwise of the name, and for one that is not there.
        """
        from schemas.ensembles.kept import EnsemblesReply

        return (await self._call(subjects.ENSEMBLES, request, EnsemblesReply)).ensembles

    async def load(self, request: ManageLoaded) -> tuple[LoadedAt, ...]:
        """Has a model on demand loaded or unloaded: the agents that were asked, and how they have it now.

        Raises UnknownModel, InvalidRequest for one that is not on demand, ModelUnusable and NoRoom with the
        memory that it takes and what there is.
        """
        from schemas.nodes.loading import LoadedReply

        return (await self._call(subjects.LOAD, request, LoadedReply, LOADING_S)).agents

    async def invite(self, request: MakeInvite) -> InviteMade:
        """Has an invite made for the key of `request`; whoever made the key then has a line for `choir join`.

        Raises InvalidRequest with the field that is wrong, NotPermitted unless the client may operate.
        """
        from schemas.nodes.joining import InviteMade

        return await self._call(subjects.INVITE, request, InviteMade, INVITING_S)

    async def tenants(self, request: ManageTenants) -> tuple[Tenant, ...]:
        """Who may ask, and how much: all tenants, after the change if one is asked for."""
        from schemas.requests.tenants import TenantsReply

        return (await self._call(subjects.TENANTS, request, TenantsReply, INVITING_S)).tenants

    async def hosts(self, request: ManageHosts) -> tuple[Host, ...]:
        """The hosts that have joined: all of them, after one is revoked if that is asked for."""
        from schemas.nodes.joining import HostsReply

        return (await self._call(subjects.HOSTS, request, HostsReply, INVITING_S)).hosts

    async def dead_letters(self, request: ManageDeadLetters) -> DeadLettersReply:
        """What could not be worked on: lists it, shows one letter, asks it again, or drops it.

        A letter that is retried becomes a new request, `retried_as`: the result of the old one stays.
        """
        from schemas.requests.dead_letters import DeadLettersReply

        return await self._call(subjects.DEAD_LETTERS, request, DeadLettersReply)

    async def shard(self, request: Shard) -> ShardReply:
        """Has a model placed as a pipeline, or its pipeline ended; the same request again changes nothing.

        Raises InvalidRequest, naming the field and the way out, for what cannot be or only slows it down.
        The stages load what they hold after the reply: `pipelines` tells when they are ready.
        """
        from schemas.pipelines.plan import ShardReply

        return await self._call(subjects.SHARD, request, ShardReply, PLANNING_S)

    async def store(self, request: ManageStore) -> StoreReply:
        """Looks into the store of models, or has it do something. What takes long is a job: the reply tells
        its id, and `ManageStore(action="jobs")` how far it is.

        Raises UnknownModel, InvalidRequest with the field that is wrong, MeshUnreachable if no store answers.
        """
        from schemas.nodes.model_store import StoreReply

        return await self._call(subjects.STORE, request, StoreReply, STORE_S)

    async def status(self) -> StatusReply:
        """The mesh at a glance."""
        return await self._call(subjects.STATUS, None, StatusReply)

    async def sql(
        self,
        statement: str,
        parameters: dict[str, Scalar] | None = None,
        *,
        max_rows: int = 10_000,
        timeout_s: float = 10.0,
        arrow: bool = False,
    ) -> Rows:
        """The rows that a SELECT over the event database gives; `parameters` fill its `$name`s.

        Raises QueryRefused for a statement that would do anything but read, QueryFailed for one that
        cannot be run, DeadlineExceeded for one that takes longer than `timeout_s`.
        """
        from schemas.requests.queries import Rows, Sql

        fields = {"statement": statement, "parameters": parameters or {}, "max_rows": max_rows}
        fields |= {"timeout_s": timeout_s, "format": "arrow" if arrow else "json"}
        # The service tells of its time limit itself, a little later than it is reached.
        return await self._call(subjects.SQL, build(Sql, fields), Rows, timeout_s + SQL_GRACE_S)

    def _check_open(self) -> None:
        if not self._open:
            raise MeshUnreachable("not connected: use `async with Choir() as mesh:`")

    async def _call(
        self,
        subject: str,
        request: Message | None,
        reply_type: type[ReplyT],
        wait_s: float = 0.0,
        transient: tuple[type[Exception], ...] = (*TRANSIENT, NotReady),
        patience_s: float = 0.0,
    ) -> ReplyT:
        """One request and its one reply, which may take `wait_s`.

        It is tried again for `patience_s`, and for a few seconds in any case. Where nobody listens, or the
        broker is away, the time that a reply may take does not count.
        """
        self._check_open()
        payload = b"" if request is None else request.to_bytes()
        started_s = time.monotonic()
        while True:
            try:
                reply = await self._try_call(subject, payload, reply_type, wait_s)
                self._silence.ends()
                return reply
            except transient as error:
                nobody = not self._replies.connected or (isinstance(error, NoReply) and error.nobody)
                reply_s = 0 if nobody else wait_s
                left_s = started_s + max(reply_s + CALL_PATIENCE_S, patience_s) - time.monotonic()
                if left_s <= 0:
                    raise self._unreachable(subject, error) from error
                if patience_s > CALL_PATIENCE_S:
                    self._silence.lasts(started_s, left_s, connected=self._replies.connected)
            await asyncio.sleep(PAUSE_S)

    async def _try_call(
        self, subject: str, payload: bytes, reply_type: type[ReplyT], wait_s: float
    ) -> ReplyT:
        reply_s = wait_s + REPLY_MARGIN_S if self._replies.connected else REPLY_MARGIN_S
        secret = self._secret if subject in catalog.KEYED else None
        reply = await self._replies.call(
            subject, payload, reply_s, tenant=self._tenant, key=self._key, secret=secret
        )
        return read(reply, reply_type)

    def _unreachable(self, subject: str, error: Exception) -> ChoirError:
        if isinstance(error, ChoirError):
            return error
        if not self._replies.connected:
            return MeshUnreachable(f"the broker has gone; {HOW_TO_START}")
        return MeshUnreachable(nobody_answers(subject))
