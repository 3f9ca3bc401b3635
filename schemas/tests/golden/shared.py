"""What several samples have in common."""

from __future__ import annotations

from schemas.commands import (
    ChatMessage,
    Gather,
    Summarize,
)
from schemas.errors import ErrorBody
from schemas.nodes.cordons import Cordon
from schemas.nodes.lease import Gpu, NodeLease, OnDemand, ServedModel, TenantLoad
from schemas.nodes.workers import Worker, WorkerState
from schemas.pipelines.plan import (
    CutMove,
    PipelinePlan,
    PipelineSummary,
    Shard,
    Shardable,
    StageHeld,
    StageOffer,
    StagePlan,
    StageSummary,
    StepCost,
    StepTimes,
)
from schemas.replies import (
    Answer,
    Decision,
    Embeddings,
    Sample,
    Timings,
    Vote,
)
from schemas.requests.chat import Image, Tool, ToolCall
from schemas.requests.keys import ApiKey, KeyLimits
from schemas.requests.sampling import Sampling
from schemas.subjects import owned_id

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
    stop_string="\n",
    prompt_tokens=21,
    generated_tokens=2,
    timings=TIMINGS,
    logprobs=({"token": "Paris", "logprob": -0.01, "top": [{"token": "London", "logprob": -5.5}]},),
    option_probabilities={"A": 0.004, "B": 0.996},
    chunks=2,
    thinking="The capital of France, then.",
    model_sha256="5f" * 32,
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
    prompt_tokens_cut=3,
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
    step_costs=(StepCost(rows=1, alone=1.0, beside=1.25), StepCost(rows=2, alone=2.5, beside=3.0)),
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
    moved=CutMove(
        at_s=ACCEPTED_AT_S,
        ends_before=(1, 4),
        ends=(2, 4),
        rows=4,
        slowest_ms=10.5,
        predicted_ms=7.0,
        gain=0.5,
        rest_s=20.0,
        live_tokens=512,
        lost_s=5.5,
        gained_s=100.0,
    ),
    moving=CutMove(
        at_s=ACCEPTED_AT_S,
        ends_before=(2, 4),
        ends=(3, 4),
        slowest_ms=9.5,
        predicted_ms=7.5,
        gain=0.25,
        rest_s=40.0,
        moves=2,
    ),
)
PIPELINE = PipelineSummary(
    model=PLAN.model,
    epoch=PLAN.epoch,
    state="loading",
    stages=tuple(
        StageSummary(
            **stage.model_dump(), alive=True, ready=stage.first_layer == 0, step_ms=4.25, layer_ms=2.125
        )
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
    moved=PLAN.moved,
    moving=PLAN.moving,
)
CORDON = Cordon(instance="agent-1", drain=True, at_s=ACCEPTED_AT_S, by="alice")
ON_DEMAND = OnDemand(
    state="loaded",
    memory_bytes=2_900_000_000,
    budget_bytes=8_000_000_000,
    loads=3,
    unload_at_s=1_700_000_300.5,
)
STAGE_OFFER = StageOffer(
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
        prepared=(3, 4),
        prompt_token_ms=3.5,
        live_tokens=512,
        times=(StepTimes(rows=4, steps=310, median_ms=7.05, spread=0.125),),
    ),
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
            identity="5f0c9a1b7e3d46528f90ab12cd34ef56",
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
    stage=STAGE_OFFER,
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
