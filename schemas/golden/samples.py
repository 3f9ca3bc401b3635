"""One message of every type, or several where one cannot have all fields: what the golden files show."""

from __future__ import annotations

from schemas.cache import CacheEntry
from schemas.chat import Image, NamedTool, Tool, ToolCall
from schemas.commands import (
    Ask,
    Cancel,
    ChatMessage,
    CountTokens,
    Embed,
    Feedback,
    Fetch,
    Gather,
    Generate,
    RawPrompt,
    ReadScores,
    Summarize,
    Tokenize,
)
from schemas.dead_letters import DeadLetter, DeadLettersReply, ManageDeadLetters
from schemas.ensembles import Ensemble
from schemas.errors import ErrorBody
from schemas.events import (
    DecisionMade,
    FeedbackReceived,
    GatherCompleted,
    GatherPulled,
    MessageDied,
    NodeSampled,
    RequestAccepted,
    RequestCancelled,
    RequestCompleted,
    RequestRefused,
    RequestReplied,
    RequestSummarised,
    ServiceStarted,
    ServiceStopped,
    StageStepped,
    TaskCancelled,
    TaskCompleted,
    TaskFirstToken,
    TaskPulled,
    TaskQueued,
    TaskRetried,
)
from schemas.files import BatchFault, BatchRecord, FileRecord
from schemas.golden.stage_samples import STAGE_SAMPLES
from schemas.joining import Enrol, Enrolled, Host, HostedInstance, Invite, Join, Joined
from schemas.keys import ApiKey, KeyChange, KeyLimits, KeysReply, ManageKeys
from schemas.message import Message
from schemas.nodes import Gpu, NodeLease, ServedModel, TenantLoad
from schemas.pipelines import (
    PipelinePlan,
    PipelineSummary,
    Shard,
    Shardable,
    ShardReply,
    StageHeld,
    StageOffer,
    StagePlan,
    StageSummary,
)
from schemas.queries import RowColumn, Rows, Sql
from schemas.replies import (
    Accepted,
    AgentAgreement,
    Answer,
    Cancelled,
    ChainStep,
    Decision,
    Embeddings,
    ErrorReply,
    FeedbackCounted,
    ModelsReply,
    ModelSummary,
    NodesReply,
    Result,
    Sample,
    Score,
    ScoresReply,
    StatusReply,
    Timings,
    TokenChunk,
    TokenCount,
    Tokenized,
    TokenizerInfo,
    UnlabelledScore,
    Vote,
)
from schemas.responses import ResponseRecord
from schemas.sampling import Sampling
from schemas.subjects import owned_id
from schemas.tenants import Tenant, TenantLimits
from schemas.workers import ManageWorkers, Worker, WorkersReply, WorkerState, WorkerStatus

REQUEST = "01JZ0CH0RA8W2M6Q4T7Y1B3N5P"
TENANTS_REQUEST = owned_id("lab-7", REQUEST)
"""The same id, chosen by another tenant than `local`."""
FINGERPRINT = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
ACCEPTED_AT_S = 1_750_000_000.0
COMPLETED_AT_S = 1_750_000_001.25
DEADLINE_AT_S = 1_750_000_060.0

WORKER = Worker(
    id="mac-07",
    type="lm_studio",
    host="mac-07.local",
    port=1234,
    model="qwen2.5-7b-instruct",
    served_as="qwen2.5-7b",
    slots=3,
    weight=2,
    context_tokens=8_192,
    key_variable="LM_STUDIO_KEY",
    only_on="host-1",
)
API_KEY = ApiKey(
    id="k-7f3a21",
    tenant="biology",
    label="Open WebUI",
    digest="0f" * 32,
    ending="x9_Q",
    scopes=("models", "generate"),
    models=("llama3.2:3b",),
    limits=KeyLimits(requests_in_flight=8, tokens_per_minute=60_000),
    cache=False,
    created_at_s=1_750_000_000.5,
    expires_at_s=1_780_000_000.0,
)
WORKER_STATE = WorkerState(
    id="mac-07",
    type="lm_studio",
    url="http://mac-07.local:1234",
    circuit="closed",
    failures=1,
    weight=2,
    last_error=ErrorBody(code="worker_failed", message="mac-07: the stream broke off"),
    last_error_at_s=1_750_000_000.5,
    checked_at_s=1_750_000_004.0,
)
CONVERSATION = (
    ChatMessage(role="system", content="Answer in one word."),
    ChatMessage(role="user", content="What is the capital of France?"),
)
SAMPLING = Sampling(
    max_tokens=64,
    temperature=0.7,
    top_k=20,
    top_p=0.9,
    seed=42,
    stop=("\n\n",),
    json_schema={"type": "object", "properties": {"city": {"type": ["string", "null"], "default": None}}},
    logprobs=2,
)
CALL = ToolCall(id="call_1", name="weather", arguments={"city": "Paris", "days": 2, "unit": None})
TOOL_CONVERSATION = (
    ChatMessage(
        role="user", content="Is this Paris, and how is the weather?", images=(Image(data="aW1hZ2U="),)
    ),
    ChatMessage(role="assistant", thinking="I have to look it up.", tool_calls=(CALL,)),
    ChatMessage(role="tool", content='{"sky": "clear"}', tool_call_id="call_1", name="weather"),
)
TOOLS = (
    Tool(
        name="weather",
        description="The weather of the next days",
        parameters={
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    ),
)
FULL_SAMPLING = Sampling(
    max_tokens=512,
    temperature=0.8,
    presence_penalty=0.5,
    frequency_penalty=-0.5,
    repeat_penalty=1.1,
    min_p=0.05,
    logit_bias={11: -100.0, 42: 2.5},
    n=2,
    think="high",
)
GRAMMAR_SAMPLING = Sampling(grammar='root ::= "yes" | "no"')

OVERLOADED = ErrorBody(
    code="overloaded", message="the queue of work is full", retry_after_s=2.5, request_id=REQUEST
)
EVICTED = ErrorBody(
    code="result_evicted",
    message="request_id: the result of '01J9ZQ3M4K5N6P7Q8R9S0T1V2W' is no longer kept, if there was one: "
    "results stored before 2024-10-12T07:33:20Z are gone",
    field="request_id",
)
UNKNOWN_MODEL = ErrorBody(
    code="unknown_model",
    message="no live agent serves 'llama3.2:3b'",
    field="model",
    request_id=REQUEST,
    known=("choir-alto", "choir-bass"),
)
FAILED = ErrorBody(code="generation_failed", message="the backend has closed the connection")

TIMINGS = Timings(
    total_duration_ns=1_200_000_000,
    queue_duration_ns=3_000_000,
    load_duration_ns=5_000_000,
    prompt_eval_duration_ns=40_000_000,
    eval_duration_ns=1_100_000_000,
    first_token_ns=52_000_000,
)
ANSWER = Answer(
    request_id=REQUEST,
    round=1,
    agent="llama3.2:3b",
    model="llama3.2:3b",
    instance="agent-1",
    text="Paris",
    finish_reason="stop",
    prompt_tokens=21,
    generated_tokens=2,
    timings=TIMINGS,
    logprobs=({"token": "Paris", "logprob": -0.01, "top": [{"token": "London", "logprob": -5.5}]},),
    option_probabilities={"A": 0.004, "B": 0.996},
    chunks=2,
    thinking="The capital of France, then.",
)
ANSWER_WITH_CALLS = Answer(
    request_id=REQUEST,
    agent="llama3.2:3b",
    model="llama3.2:3b",
    instance="agent-1",
    finish_reason="stop",
    prompt_tokens=80,
    generated_tokens=45,
    tool_calls=(CALL,),
    samples=(
        Sample(
            text="It is clear in Paris.",
            thinking="I know that.",
            tool_calls=(CALL,),
            finish_reason="length",
            generated_tokens=20,
            logprobs=({"token_id": 7, "text": "It", "logprob": -0.5, "top": []},),
        ),
    ),
)
SCORED = Answer(
    request_id=REQUEST,
    agent="llama3.2:3b",
    model="llama3.2:3b",
    instance="agent-1",
    text=" capital",
    finish_reason="length",
    prompt_tokens=2,
    generated_tokens=1,
    logprobs=({"token_id": 9, "text": " capital", "logprob": -0.7, "top": []},),
    prompt_logprobs=(
        {"token_id": 5, "text": "The"},
        {
            "token_id": 8,
            "text": " French",
            "logprob": -2.25,
            "top": [{"token_id": 8, "text": " French", "logprob": -2.25}],
        },
    ),
)
EMBEDDED = Answer(
    request_id=REQUEST,
    agent="nomic-embed",
    model="nomic-embed",
    instance="agent-1",
    finish_reason="stop",
    prompt_tokens=7,
    embeddings=Embeddings.of(((0.6, 0.8), (1.0, 0.0))),
)
GENERATED = Answer(
    request_id=REQUEST,
    round=1,
    agent="choir-bass",
    model="choir-bass",
    instance="agent-2",
    text="France is a country in Europe. Its capital is Paris.",
    finish_reason="stop",
    prompt_tokens=9,
    generated_tokens=14,
    timings=TIMINGS,
)
PART_ANSWER = ANSWER.model_copy(
    update={"round": 2, "agent": "part-5b3c1f0a9d24e687", "generated_tokens": 14, "chunks": 0, "logprobs": ()}
)
FAILED_ANSWER = Answer(
    request_id=REQUEST,
    agent="choir-bass",
    model="choir-bass",
    instance="agent-2",
    finish_reason="error",
    error=FAILED,
)
DECISION = Decision(
    strategy="majority",
    answer="paris",
    text="Paris",
    share=0.75,
    margin=0.5,
    tie=False,
    votes=(
        Vote(agent="llama3.2:3b", answer="paris", weight=1.0),
        Vote(agent="choir-bass", answer=None, weight=0.0),
    ),
    scores={"paris": 3.0, "london": 1.0},
    abstained=("choir-bass",),
)
UNDECIDED = Decision(
    strategy="average",
    share=0.0,
    margin=0.0,
    tie=False,
    votes=(Vote(agent="choir-bass", weight=0.0),),
    scores={},
    abstained=("choir-bass",),
    note="no agent has said how probable the options are",
)
SHARDABLE = Shardable(
    name="llama3.2:3b",
    sha256="5d" * 32,
    architecture="llama",
    layers=4,
    cuts=(1, 2, 3),
    width=3_072,
    context_tokens=8_192,
    layer_bytes=(100_000_000,) * 4,
    first_bytes=400_000_000,
    last_bytes=400_000_000,
    cell_bytes=4_096,
    layer_ms=1.5,
    last_ms=4.0,
)
SHARD = Shard(
    model="llama3.2:3b",
    stages=2,
    assign=("alpha", "beta"),
    force=True,
    dtype="f16",
    partition="tokenwise",
    slots=8,
    context_tokens=4_096,
)
PLAN = PipelinePlan(
    model="llama3.2:3b",
    number=7_204_113,
    epoch=3,
    since_epoch=2,
    sha256="5d" * 32,
    architecture="llama",
    layers=4,
    width=3_072,
    slots=8,
    context_tokens=4_096,
    dtype="f16",
    partition="tokenwise",
    stages=(
        StagePlan(instance="shard_stage-1", host="alpha", first_layer=0, end_layer=2, predicted_ms=3.0),
        StagePlan(instance="shard_stage-2", host="beta", first_layer=2, end_layer=4, predicted_ms=7.0),
    ),
    predicted_ms=10.4,
    whole_ms=10.0,
    wanted=SHARD,
    made_by="shard_stage-2",
    made_at_s=ACCEPTED_AT_S,
    why="shard_stage-2 takes the place of shard_stage-3, which fell silent",
)
PIPELINE = PipelineSummary(
    model=PLAN.model,
    epoch=PLAN.epoch,
    state="loading",
    stages=tuple(
        StageSummary(**stage.model_dump(), alive=True, ready=stage.first_layer == 0, step_ms=4.25)
        for stage in PLAN.stages
    ),
    standbys=("shard_stage-4",),
    slots=PLAN.slots,
    context_tokens=PLAN.context_tokens,
    dtype=PLAN.dtype,
    partition=PLAN.partition,
    predicted_ms=PLAN.predicted_ms,
    whole_ms=PLAN.whole_ms,
    measured_ms=11.5,
    why=PLAN.why,
    problem="the pipeline of llama3.2:3b has no node for stage 1",
)
LEASE = NodeLease(
    tenants={"lab-7": TenantLoad(in_flight=3, batch=1)},
    service="agent",
    instance="agent-1",
    host="alpha",
    pid=4711,
    version="0.1.0",
    state="ready",
    started_at_s=ACCEPTED_AT_S,
    seen_at_s=COMPLETED_AT_S,
    clock_ahead_s=0.25,
    host_id="c0de",
    models=(
        ServedModel(
            name="llama3.2:3b",
            backend="llama_cpp",
            slots=4,
            busy=1,
            context_tokens=4_096,
            parameters=3_212_749_888,
            file="llama-3.2-3b-instruct-q4_k_m.gguf",
            size_bytes=2_019_377_696,
            quantisation="Q4_K_M",
            tokens_per_s=12.5,
            description="a general model",
            capabilities=("completion", "tools", "thinking", "scoring", "tokenizing"),
        ),
        ServedModel(
            name="broken",
            backend="llama_cpp",
            slots=0,
            problem=ErrorBody(code="model_unusable", message="broken.gguf is truncated"),
        ),
        ServedModel(
            name="qwen2.5-7b",
            backend="lm_studio",
            slots=3,
            worker=WORKER_STATE,
        ),
    ),
    slots=4,
    busy=1,
    load_average=0.5,
    cpu_percent=12.5,
    memory_used_bytes=2_500_000_000,
    host_memory_free_bytes=8_000_000_000,
    gpus=(
        Gpu(
            name="GPU 0",
            memory_total_bytes=24_000_000_000,
            memory_free_bytes=20_000_000_000,
            utilization_percent=7.5,
        ),
    ),
    problem=ErrorBody(code="model_unusable", message="one of two models cannot be served"),
    stage=StageOffer(
        models=(SHARDABLE,),
        memory_bytes=8_000_000_000,
        threads=2,
        cores=4,
        hop_ms=0.2,
        held=StageHeld(
            model="llama3.2:3b",
            epoch=3,
            stage=1,
            first_layer=2,
            end_layer=4,
            ready=True,
            step_ms=7.1,
            tokens_per_s=42.5,
        ),
    ),
)

ROUTER = {
    "event_id": "01JZ0EVENT0000000000000001",
    "at_s": ACCEPTED_AT_S,
    "service": "router",
    "instance": "router-1",
    "host": "alpha",
}
AGENT = {**ROUTER, "service": "agent", "instance": "agent-1"}
AGGREGATOR = {**ROUTER, "service": "aggregator", "instance": "aggregator-1"}
SUMMARIZER = {**ROUTER, "service": "summarizer", "instance": "summarizer-1"}
STAGE = {**ROUTER, "service": "shard_stage", "instance": "stage-1"}
REQUESTED = {
    "request_id": REQUEST,
    "tenant": "local",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "span_id": "00f067aa0ba902b7",
    "parent_span_id": "53995c3f42cd8ad8",
}
TASK = {**REQUESTED, "task_id": ANSWER.task_id}

GATHER = Gather(
    request_id=REQUEST,
    members=("llama3.2:3b", "choir-bass"),
    strategies=("majority", "weighted"),
    quorum=1,
    choices=("London", "Paris"),
    answer_kind="choice",
    topic="capitals",
    samples=5,
    messages=CONVERSATION,
    sampling=SAMPLING,
    priority="batch",
    partition="adaptive",
    stream=True,
    fingerprint=FINGERPRINT,
    accepted_at_s=ACCEPTED_AT_S,
    deadline_at_s=DEADLINE_AT_S,
)

SUMMARIZE = Summarize(
    request_id=REQUEST,
    peers=("choir-bass", "llama3.2:3b"),
    summary_prompt="Summarize: {text}",
    messages=CONVERSATION,
    sampling=SAMPLING,
    priority="batch",
    partition="layerwise",
    stream=True,
    fingerprint=FINGERPRINT,
    accepted_at_s=ACCEPTED_AT_S,
    deadline_at_s=DEADLINE_AT_S,
)

PUBLIC_KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
ANOTHER_PUBLIC_KEY = "UCNGL4W5QX66CFX6A6DCBVDH5VOHMI7B2UZZU7TXAUQQSI2JPHULCKBR"

SAMPLES: dict[str, Message] = {
    **STAGE_SAMPLES,
    # commands
    "ask_one_model": Ask(
        request_id=REQUEST, prompt="What is the capital of France?", model="llama3.2:3b", stream=True
    ),
    "ask_with_tools": Ask(
        messages=TOOL_CONVERSATION,
        tools=TOOLS,
        tool_choice="required",
        model="llama3.2:3b",
        sampling=FULL_SAMPLING,
    ),
    "ask_to_score": Ask(
        raw=RawPrompt(tokens=(5, 8)),
        model="llama3.2:3b",
        sampling=Sampling(max_tokens=1, logprobs=1, prompt_logprobs=True),
    ),
    "ask_to_embed": Ask(
        embed=Embed(inputs=("What is the capital of France?", "Paris"), dimensions=2, truncate=True),
        model="nomic-embed",
    ),
    "ask_ensemble": Ask(
        messages=CONVERSATION,
        models=("llama3.2:3b", "choir-bass"),
        strategies=("majority", "best_single"),
        choices=("London", "Paris"),
        answer_kind="choice",
        topic="capitals",
        samples=5,
        max_agents=2,
        quorum=1,
        sampling=SAMPLING,
        timeout_s=30.0,
        priority="batch",
        partition="tokenwise",
    ),
    "ask_chain": Ask(
        prompt="Tell me about Kenya.",
        model="choir-bass",
        summarize_with=("llama3.2:3b", "choir-alto"),
        summary_prompt="What does this say of {question} In one sentence:\n\n{text}",
    ),
    "ask_that_takes_an_equal_result": Ask(
        prompt="What is the capital of France?", model="choir-alto", cache=True
    ),
    "ask_shortest": Ask(prompt="What is the capital of France?"),
    "generate_of_a_tenant": Generate(
        request_id=TENANTS_REQUEST,
        agent="llama3.2:3b",
        model="llama3.2:3b",
        messages=(ChatMessage(role="user", content="What is the capital of France?"),),
        sampling=Sampling(),
        fingerprint=FINGERPRINT,
        accepted_at_s=ACCEPTED_AT_S,
        deadline_at_s=DEADLINE_AT_S,
    ),
    "generate": Generate(
        request_id=REQUEST,
        round=1,
        agent="llama3.2:3b",
        model="llama3.2:3b",
        messages=CONVERSATION,
        sampling=GRAMMAR_SAMPLING,
        priority="interactive",
        partition="layerwise",
        stream=True,
        fingerprint=FINGERPRINT,
        accepted_at_s=ACCEPTED_AT_S,
        deadline_at_s=DEADLINE_AT_S,
        routing_slip=("aggregator",),
    ),
    "generate_with_tools": Generate(
        request_id=REQUEST,
        agent="llama3.2:3b",
        model="llama3.2:3b",
        messages=TOOL_CONVERSATION,
        tools=TOOLS,
        tool_choice=NamedTool(name="weather"),
        sampling=FULL_SAMPLING,
        fingerprint=FINGERPRINT,
        accepted_at_s=ACCEPTED_AT_S,
        deadline_at_s=DEADLINE_AT_S,
    ),
    "generate_from_raw": Generate(
        request_id=REQUEST,
        agent="llama3.2:3b",
        model="llama3.2:3b",
        raw=RawPrompt(text="The French"),
        sampling=Sampling(max_tokens=1, logprobs=1, prompt_logprobs=True),
        fingerprint=FINGERPRINT,
        accepted_at_s=ACCEPTED_AT_S,
        deadline_at_s=DEADLINE_AT_S,
    ),
    "generate_vectors": Generate(
        request_id=REQUEST,
        agent="nomic-embed",
        model="nomic-embed",
        embed=Embed(inputs=("What is the capital of France?", "Paris")),
        sampling=Sampling(),
        fingerprint=FINGERPRINT,
        accepted_at_s=ACCEPTED_AT_S,
        deadline_at_s=DEADLINE_AT_S,
    ),
    "gather": GATHER,
    "summarize": SUMMARIZE,
    "fetch": Fetch(request_id=REQUEST, wait_s=10.0, stream=True, after_sequence=17),
    "cancel": Cancel(request_id=REQUEST),
    "feedback": Feedback(request_id=REQUEST, correct="Paris", topic="capitals"),
    "read_scores": ReadScores(reset=True),
    "count_tokens": CountTokens(messages=CONVERSATION, tools=TOOLS),
    "tokenize": Tokenize(model="llama3.2:3b", text="The French", special=False, bos=True),
    "tokenize_messages": Tokenize(model="llama3.2:3b", messages=CONVERSATION, tools=TOOLS),
    "detokenize": Tokenize(model="llama3.2:3b", tokens=(5, 8)),
    "sql": Sql(
        statement="SELECT model, count(*) AS tasks FROM tasks WHERE at > $since GROUP BY model",
        parameters={"since": "2025-06-15"},
        max_rows=100,
        timeout_s=2.5,
    ),
    "shard": SHARD,
    # replies
    "answer": ANSWER,
    "answer_failed": FAILED_ANSWER,
    "answer_with_calls": ANSWER_WITH_CALLS,
    "answer_scored": SCORED,
    "answer_embedded": EMBEDDED,
    "decision": DECISION,
    "decision_without_answers": UNDECIDED,
    "result": Result(
        request_id=REQUEST,
        fingerprint=FINGERPRINT,
        topology="ensemble",
        text="Paris",
        answers=(ANSWER, FAILED_ANSWER),
        decisions=(DECISION,),
        missing=("choir-tenor",),
        further_answers=(ANSWER.model_copy(update={"round": 2}),),
        topic="capitals",
        answer_kind="choice",
        choices=("London", "Paris"),
        accepted_at_s=ACCEPTED_AT_S,
        completed_at_s=COMPLETED_AT_S,
    ),
    "result_of_an_equal_request": Result(
        request_id=REQUEST,
        fingerprint=FINGERPRINT,
        topology="single",
        text="Paris",
        answers=(ANSWER,),
        accepted_at_s=ACCEPTED_AT_S,
        completed_at_s=COMPLETED_AT_S,
        cache="hit",
        cached_from="01JCQ5ZX3T9V7W6Y5N4M3K2H0A",
    ),
    "result_of_a_chain": Result(
        request_id=REQUEST,
        fingerprint=FINGERPRINT,
        topology="chain",
        text="Paris",
        answers=(GENERATED, ANSWER.model_copy(update={"round": 2})),
        steps=(
            ChainStep(
                agent="choir-bass",
                model="choir-bass",
                instance="agent-2",
                prompt_tokens=9,
                generated_tokens=14,
                timings=TIMINGS,
                tokens_per_s=12.7,
                round_trip_ns=1_204_000_000,
                ping_ns=400_000,
            ),
            ChainStep(
                agent="llama3.2:3b",
                model="llama3.2:3b",
                instance="agent-1",
                tasks=2,
                prompt_tokens=42,
                generated_tokens=16,
                timings=TIMINGS,
                tokens_per_s=14.5,
                round_trip_ns=1_206_000_000,
                ping_ns=600_000,
                network_latency_ns=500_000,
                parts=(PART_ANSWER,),
            ),
        ),
        accepted_at_s=ACCEPTED_AT_S,
        completed_at_s=COMPLETED_AT_S,
    ),
    "result_with_calls": Result(
        request_id=REQUEST,
        fingerprint=FINGERPRINT,
        topology="single",
        text="",
        answers=(ANSWER_WITH_CALLS,),
        tool_calls=(CALL,),
        accepted_at_s=ACCEPTED_AT_S,
        completed_at_s=COMPLETED_AT_S,
    ),
    "result_failed": Result(
        request_id=REQUEST,
        fingerprint=FINGERPRINT,
        topology="single",
        error=FAILED,
        accepted_at_s=ACCEPTED_AT_S,
        completed_at_s=COMPLETED_AT_S,
    ),
    "token_chunk": TokenChunk(
        request_id=REQUEST, agent="llama3.2:3b", index=1, text="ris", done=True, attempt=2, sequence=18
    ),
    "token_chunk_of_an_equal_request": TokenChunk(
        request_id=REQUEST, agent="llama3.2:3b", index=0, text="Pa", sequence=17, cache="shared"
    ),
    "token_chunk_of_calls": TokenChunk(
        request_id=REQUEST,
        agent="llama3.2:3b",
        index=2,
        text="",
        tool_calls=(CALL,),
        sample=1,
        logprobs=({"token_id": 7, "text": "It", "logprob": -0.5, "top": []},),
    ),
    "token_chunk_of_thinking": TokenChunk(
        request_id=REQUEST, agent="llama3.2:3b", index=0, text="", thinking="The capital"
    ),
    "tokenized": Tokenized(model="llama3.2:3b", tokens=(5, 8), context_tokens=4_096),
    "detokenized": Tokenized(model="llama3.2:3b", text="The French", context_tokens=4_096),
    "tokenizer_told": Tokenized(
        model="llama3.2:3b",
        tokenizer=TokenizerInfo(bos="<s>", eos="</s>", pad="<pad>", chat_template="{{ messages }}"),
        context_tokens=4_096,
    ),
    "rows": Rows(
        columns=(RowColumn(name="model", type="VARCHAR"), RowColumn(name="tasks", type="BIGINT")),
        rows=(("llama3.2:3b", 12), ("choir-bass", 7)),
        row_count=2,
        truncated=True,
        elapsed_ms=1.25,
    ),
    "rows_in_arrow": Rows(
        columns=(RowColumn(name="tasks", type="BIGINT"),), arrow="QVJST1c=", row_count=0, elapsed_ms=0.5
    ),
    "accepted": Accepted(request_id=REQUEST),
    "cancelled": Cancelled(request_id=REQUEST, cancelled=True),
    "feedback_counted": FeedbackCounted(
        request_id=REQUEST, right=("llama3.2:3b",), wrong=("choir-bass",), already_counted=True
    ),
    "scores_reply": ScoresReply(
        accuracy=(
            Score(agent="llama3.2:3b", correct=41, asked=50),
            Score(agent="llama3.2:3b", topic="capitals", correct=9, asked=10),
        ),
        agreement=(AgentAgreement(one="choir-bass", other="llama3.2:3b", options=2, agreed=31, both=50),),
        unlabelled=(
            UnlabelledScore(
                agent="llama3.2:3b",
                options=2,
                with_isp=42,
                asked=50,
                confusion=((21.5, 3.5), (4.25, 20.75)),
            ),
        ),
        reset=True,
    ),
    "token_count": TokenCount(prompt_tokens=21, context_tokens=4_096),
    "nodes_reply": NodesReply(nodes=(LEASE,), left_out=2),
    "models_reply": ModelsReply(
        models=(
            ModelSummary(
                name="llama3.2:3b",
                agents=("agent-1",),
                slots=4,
                busy=1,
                context_tokens=4_096,
                parameters=3_212_749_888,
                file="llama-3.2-3b-instruct-q4_k_m.gguf",
                size_bytes=2_019_377_696,
                quantisation="Q4_K_M",
                tokens_per_s=12.5,
                description="a general model",
                capabilities=("completion", "tools"),
            ),
        ),
        pipelines=(PIPELINE,),
        ensembles=(
            Ensemble(name="council", members=("llama3.2:3b", "qwen3:4b"), strategies=("weighted",), quorum=2),
        ),
    ),
    "status_reply": StatusReply(
        services={"router": 1, "agent": 4, "aggregator": 1},
        models=("llama3.2:3b",),
        slots=4,
        busy=1,
        queued=3,
        results=120,
        problems=("agent-2: broken.gguf is truncated",),
        pipelines={"llama3.2:3b": "loading"},
    ),
    "error_reply": ErrorReply(error=UNKNOWN_MODEL),
    "error_reply_evicted": ErrorReply(error=EVICTED),
    # nodes
    "node_lease": LEASE,
    "pipeline_plan": PLAN,
    "shard_reply": ShardReply(model="llama3.2:3b", plan=PLAN, summary="2 stages: 10.4 ms a token predicted"),
    "invite": Invite(
        public_key="U" + "A" * 55,
        kind="person",
        name="lab-7",
        role="observe",
        services=("agent",),
        created_at_s=1_700_000_000.5,
        expires_at_s=1_700_003_600.5,
        rotates=True,
        overlap_s=3600.0,
        used_by="U" + "B" * 55,
        used_at_s=1_700_000_060.5,
        retires=("U" + "C" * 55,),
    ),
    "host": Host(
        name="attic",
        public_key="U" + "D" * 55,
        services=("agent", "shard_stage"),
        instances=(
            HostedInstance(
                service="agent", name="attic-agent", public_key="U" + "E" * 55, models=("llama3.2:3b",)
            ),
        ),
        created_at_s=1_700_000_000.5,
        revoked_at_s=1_700_000_100.5,
    ),
    "join": Join(public_key="U" + "B" * 55),
    "joined": Joined(name="lab-7", role="observe", services=("agent",)),
    "enrol": Enrol(
        instances=(
            HostedInstance(
                service="agent", name="attic-agent", public_key="U" + "E" * 55, models=("llama3.2:3b",)
            ),
        ),
        models=("llama3.2:3b",),
    ),
    "enrolled": Enrolled(instances=1),
    "tenant": Tenant(
        name="lab-7",
        role="observe",
        public_keys=(PUBLIC_KEY, ANOTHER_PUBLIC_KEY),
        limits=TenantLimits(
            requests_in_flight=64, tokens_per_minute=20_000, batch_share=0.25, connections=16
        ),
        weight=3,
        created_at_s=1763500000.0,
        expires_at_s=1795036000.0,
        revoked_at_s=1764000000.0,
    ),
    "worker": WORKER,
    "add_worker": ManageWorkers(action="add", worker=WORKER, replace=True),
    "remove_worker": ManageWorkers(action="remove", id="mac-07"),
    "workers_reply": WorkersReply(
        left_out=1,
        workers=(
            WorkerStatus(
                worker=WORKER,
                held_by="agent-7f3a",
                slots=3,
                busy=1,
                tokens_per_s=31.5,
                state=WORKER_STATE,
                problem=ErrorBody(
                    code="worker_failed", message="mac-07: no answer at http://mac-07.local:1234"
                ),
            ),
        ),
    ),
    "api_key": API_KEY,
    "add_key": ManageKeys(action="add", key=API_KEY),
    "change_key": ManageKeys(
        action="change",
        id="k-7f3a21",
        change=KeyChange(
            label="LangChain",
            scopes=("embed",),
            models=(),
            limits=KeyLimits(requests_in_flight=4),
            cache=True,
            expires_at_s=1_790_000_000.0,
        ),
    ),
    "keys_reply": KeysReply(keys=(API_KEY.model_copy(update={"revoked": True}),), left_out=1),
    "manage_dead_letters": ManageDeadLetters(action="retry", sequence=12),
    "list_dead_letters": ManageDeadLetters(after_sequence=12, limit=20),
    "dead_letters_reply": DeadLettersReply(
        letters=(
            DeadLetter(
                sequence=12,
                died_at_s=1_700_000_000.5,
                service="agent",
                request_id="01JABCDEFGHJKMNPQRSTVWXYZ0",
                reason="tried 5 times and never finished",
                letter="generate",
                models=("llama3.2:3b",),
                part_of="aggregator",
                size_bytes=412,
                content="{}",
            ),
        ),
        more_after=12,
        retried_as="01JABCDEFGHJKMNPQRSTVWXYZ0-retry-12",
    ),
    # events
    "service_started": ServiceStarted(**AGENT, pid=4711),
    "service_stopped": ServiceStopped(**AGENT),
    "node_sampled": NodeSampled(
        **AGENT,
        cpu_percent=12.5,
        memory_used_bytes=2_500_000_000,
        host_memory_free_bytes=8_000_000_000,
        load_average=0.5,
        gpus=LEASE.gpus,
        slots=4,
        busy=1,
        queued=3,
        broker_rtt_ns=180_000,
        traces_ignored=2,
        events_dropped=1,
    ),
    "request_accepted": RequestAccepted(
        **ROUTER,
        **REQUESTED,
        topology="ensemble",
        models=("llama3.2:3b", "choir-bass"),
        strategies=("majority",),
        prompt_bytes=30,
        priority="batch",
        timeout_s=30.0,
        admit_duration_ns=900_000,
    ),
    "request_refused": RequestRefused(**ROUTER, request_id=REQUEST, error=OVERLOADED),
    "request_completed": RequestCompleted(
        **AGGREGATOR,
        **REQUESTED,
        topology="ensemble",
        answered=2,
        prompt_tokens=42,
        generated_tokens=4,
        total_duration_ns=1_240_000_000,
        store_duration_ns=600_000,
        error=FAILED,
    ),
    "request_replied": RequestReplied(
        **ROUTER, **REQUESTED, total_duration_ns=1_250_000_000, error=FAILED, endpoint="fetch"
    ),
    "request_cancelled": RequestCancelled(**ROUTER, **REQUESTED),
    "request_summarised": RequestSummarised(
        **SUMMARIZER,
        **REQUESTED,
        model="choir-bass",
        pieces=3,
        tasks=4,
        delivery=1,
        prompt_tokens=2_100,
        generated_tokens=240,
        queue_duration_ns=2_000_000,
        total_duration_ns=3_500_000_000,
        error=FAILED,
    ),
    "task_queued": TaskQueued(
        **AGGREGATOR, **TASK, model="llama3.2:3b", round=2, priority="batch", store_duration_ns=500_000
    ),
    "task_pulled": TaskPulled(
        **AGENT, **TASK, model="llama3.2:3b", delivery=1, queue_duration_ns=3_000_000, round=2, waiting=7
    ),
    "task_first_token": TaskFirstToken(
        **AGENT, **TASK, model="llama3.2:3b", first_token_ns=52_000_000, round=2
    ),
    "task_completed": TaskCompleted(
        **AGENT,
        **TASK,
        model="llama3.2:3b",
        finish_reason="error",
        prompt_tokens=21,
        generated_tokens=2,
        timings=TIMINGS,
        error=FAILED,
        round=2,
        delivery=1,
        tokens_per_s=1.8,
        slot_duration_ns=12_000_000,
        store_duration_ns=500_000,
        queue_duration_ns=3_000_000,
        topology="ensemble",
    ),
    "task_cancelled": TaskCancelled(
        **AGENT, **TASK, model="llama3.2:3b", total_duration_ns=700_000_000, round=2
    ),
    "task_retried": TaskRetried(**AGENT, **TASK, delivery=2, error=FAILED, delay_s=0.5),
    "gather_pulled": GatherPulled(
        **AGGREGATOR,
        **REQUESTED,
        members=("llama3.2:3b", "choir-bass"),
        delivery=1,
        queue_duration_ns=800_000,
        waiting=2,
    ),
    "gather_completed": GatherCompleted(
        **AGGREGATOR,
        **REQUESTED,
        rounds=2,
        answered=2,
        missing=1,
        collect_duration_ns=1_230_000_000,
        decide_duration_ns=400_000,
        store_duration_ns=600_000,
    ),
    "decision_made": DecisionMade(
        **AGGREGATOR,
        **REQUESTED,
        strategy="majority",
        agents=4,
        abstained=1,
        missing=1,
        share=0.75,
        margin=0.5,
        tie=False,
        rounds=2,
    ),
    "stage_stepped": StageStepped(
        **STAGE,
        pipeline="llama3.2:3b",
        stage=1,
        epoch=3,
        batch_size=4,
        tokens=4,
        compute_ns=18_000_000,
        hop_ns=400_000,
        waiting_ns=2_000_000,
        steps=1,
        requests=(REQUEST,),
    ),
    "feedback_received": FeedbackReceived(
        **AGGREGATOR,
        **REQUESTED,
        right=("llama3.2:3b",),
        wrong=("choir-bass",),
        strategies_right=("majority",),
        strategies_wrong=("weighted",),
    ),
    "message_died": MessageDied(
        **AGENT,
        **TASK,
        error=ErrorBody(code="poison_message", message="not a Generate: field model is missing"),
    ),
    "file_record": FileRecord(
        id="file-01JCQ5ZX3T9V7W6Y5N4M3K2H0A",
        filename="questions.jsonl",
        purpose="batch",
        size_bytes=140,
        created_at_s=1_700_000_000.5,
    ),
    "batch_record": BatchRecord(
        id="batch_01JCQ5ZX3T9V7W6Y5N4M3K2H0A",
        key_id="chapter-2",
        endpoint="/v1/chat/completions",
        input_file_id="file-01JCQ5ZX3T9V7W6Y5N4M3K2H0A",
        metadata={"chapter": "2"},
        status="completed",
        total=10,
        completed=9,
        failed=1,
        faults=(BatchFault(code="mismatched_url", message="url: another", line=3, param="url"),),
        output_file_id="file-01JCQ5ZX3T9V7W6Y5N4M3K2H0A-output",
        error_file_id="file-01JCQ5ZX3T9V7W6Y5N4M3K2H0A-errors",
        created_at_s=1_700_000_000.5,
        expires_at_s=1_700_086_400.5,
        in_progress_at_s=1_700_000_001.5,
        finalizing_at_s=1_700_000_009.5,
        completed_at_s=1_700_000_010.5,
        failed_at_s=1_700_000_011.5,
        expired_at_s=1_700_000_012.5,
        cancelling_at_s=1_700_000_013.5,
        cancelled_at_s=1_700_000_014.5,
        runner="gateway-1",
        beat=7,
    ),
    "cache_entry": CacheEntry(request_id="lab-7=01JCQ5ZX3T9V7W6Y5N4M3K2H0A", at_s=1_700_000_000.5),
    "response_record": ResponseRecord(
        ask=Ask(request_id=REQUEST, messages=(ChatMessage(role="user", content="And of Kenya?"),), model="m"),
        conversation=(
            ChatMessage(role="user", content="What is the capital of France?"),
            ChatMessage(role="assistant", content="Paris"),
            ChatMessage(role="user", content="And of Kenya?"),
        ),
        created_at_s=1_700_000_000.5,
        model="m:latest",
        background=True,
        previous="01JCQ5ZX3T9V7W6Y5N4M3K2H0A",
        echo={"metadata": {"chapter": "2"}, "temperature": 0.5},
    ),
}
