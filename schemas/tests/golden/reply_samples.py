"""What is answered: answers, decisions, results, errors."""

from __future__ import annotations

from schemas.ensembles.effort import AutoChoice, Cascade
from schemas.ensembles.named import Ensemble
from schemas.ensembles.receipts import AnswerHash, Known, Receipt
from schemas.ensembles.scores import AgentAgreement, Score, UnlabelledScore
from schemas.errors import Undecided as UndecidedError
from schemas.message import Message
from schemas.nodes.lease import ServedModel
from schemas.replies import (
    Accepted,
    Cancelled,
    ChainStep,
    ErrorReply,
    FeedbackCounted,
    ModelQueue,
    ModelsReply,
    ModelSummary,
    NodesReply,
    Result,
    ScoresReply,
    StatusReply,
    TokenChunk,
    TokenCount,
    Tokenized,
    TokenizerInfo,
)
from schemas.requests.queries import RowColumn, Rows
from schemas.tests.golden.shared import (
    ACCEPTED_AT_S,
    ANSWER,
    ANSWER_WITH_CALLS,
    CALL,
    COMPLETED_AT_S,
    DECISION,
    EMBEDDED,
    EVICTED,
    FAILED,
    FAILED_ANSWER,
    FINGERPRINT,
    GENERATED,
    LEASE,
    ON_DEMAND,
    PART_ANSWER,
    PIPELINE,
    REQUEST,
    SCORED,
    TIMINGS,
    UNDECIDED,
    UNKNOWN_MODEL,
)

DECIDED = Result(
    request_id=REQUEST,
    fingerprint=FINGERPRINT,
    topology="ensemble",
    text="Paris",
    answers=(ANSWER,),
    decisions=(DECISION,),
    accepted_at_s=ACCEPTED_AT_S,
    completed_at_s=COMPLETED_AT_S,
)
"""What results of ensembles have in common."""

REPLY_SAMPLES: dict[str, Message] = {
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
    "result_of_a_cascade": DECIDED.model_copy(
        update={
            "cascade": Cascade(
                effort="bounded",
                epsilon=0.05,
                waves=(("llama3.2:3b",), ("choir-tenor",)),
                spared=("choir-bass",),
                ended="likely",
                bound=0.03,
                saved_calls=1,
                saved_tokens=23,
            )
        }
    ),
    "result_of_auto": DECIDED.model_copy(
        update={
            "decisions": (DECISION.model_copy(update={"strategy": "auto"}),),
            "auto": AutoChoice(
                way="single",
                why="it is better",
                topic="capitals",
                best="llama3.2:3b",
                alone=0.9,
                together=0.7,
            ),
        }
    ),
    "result_with_a_receipt": DECIDED.model_copy(
        update={
            "receipt": Receipt(
                choir="0.1.0",
                instance="box-aggregator-1",
                number=2,
                previous="0a" * 32,
                command_sha256="1b" * 32,
                fingerprint=FINGERPRINT,
                lots=FINGERPRINT,
                seed=42,
                topic="capitals",
                strategies=("majority",),
                answers=(AnswerHash(agent="llama3.2:3b", round=1, sha256="2c" * 32, model_sha256="5f" * 32),),
                decisions_sha256="3d" * 32,
                outcome_sha256="4e" * 32,
                known=Known(
                    accuracy=(Score(agent="llama3.2:3b", correct=8, asked=9),),
                    agreement=(
                        AgentAgreement(one="choir-bass", other="llama3.2:3b", options=2, agreed=3, both=4),
                    ),
                ),
                key="UCHOIR",
                signature="c2lnbmVk",
            )
        }
    ),
    "result_that_is_undecided": Result(
        request_id=REQUEST,
        fingerprint=FINGERPRINT,
        topology="ensemble",
        error=UndecidedError("min_confidence: 90.0% are asked for", field="min_confidence").body(REQUEST),
        answers=(ANSWER,),
        decisions=(DECISION.model_copy(update={"confidence": 0.62}),),
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
                identity="5f0c9a1b7e3d46528f90ab12cd34ef56",
            ),
        ),
        pipelines=(PIPELINE,),
        ensembles=(
            Ensemble(name="council", members=("llama3.2:3b", "qwen3:4b"), strategies=("weighted",), quorum=2),
        ),
    ),
    "models_reply_on_demand": ModelsReply(
        models=(
            ModelSummary(
                name="qwen3:4b",
                agents=("agent-2",),
                slots=2,
                busy=0,
                on_demand=ON_DEMAND,
                repository="Qwen/Qwen3-4B-GGUF",
            ),
        ),
    ),
    "nodes_reply_on_demand": NodesReply(
        nodes=(
            LEASE.model_copy(
                update={
                    "models": (
                        ServedModel(
                            name="qwen3:4b",
                            backend="llama_cpp",
                            slots=2,
                            on_demand=ON_DEMAND,
                            repository="Qwen/Qwen3-4B-GGUF",
                        ),
                    )
                }
            ),
        )
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
        queues={"llama3.2:3b": ModelQueue(waiting=2, in_work=1)},
    ),
    "error_reply": ErrorReply(error=UNKNOWN_MODEL),
    "error_reply_evicted": ErrorReply(error=EVICTED),
}
