"""What is asked: requests of clients, and the commands that services send one another."""

from __future__ import annotations

from schemas.commands import (
    Ask,
    Cancel,
    ChatMessage,
    CountTokens,
    Embed,
    Feedback,
    Fetch,
    Generate,
    RawPrompt,
    ReadScores,
    Tokenize,
)
from schemas.message import Message
from schemas.requests.chat import NamedTool
from schemas.requests.queries import Sql
from schemas.requests.sampling import Sampling
from schemas.tests.golden.shared import (
    ACCEPTED_AT_S,
    CONVERSATION,
    DEADLINE_AT_S,
    FINGERPRINT,
    FULL_SAMPLING,
    GATHER,
    GRAMMAR_SAMPLING,
    REQUEST,
    SAMPLING,
    SHARD,
    SUMMARIZE,
    TENANTS_REQUEST,
    TOOL_CONVERSATION,
    TOOLS,
)

COMMAND_SAMPLES: dict[str, Message] = {
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
    "ask_that_takes_a_settled_result": Ask(
        prompt="What is the capital of France?", model="choir-alto", cache=True, cache_settled=True
    ),
    "ask_with_less_effort": Ask(
        prompt="What is the capital of France?", strategies=("majority",), effort="bounded", epsilon=0.05
    ),
    "ask_that_says_how_long_a_model_stays": Ask(
        prompt="What is the capital of France?", model="qwen3:4b", keep_alive_s=600.0
    ),
    "ask_that_may_stay_undecided": Ask(
        prompt="What is the capital of France?", strategies=("weighted",), min_confidence=0.9
    ),
    "ask_for_a_receipt": Ask(
        prompt="What is the capital of France?",
        strategies=("synthesize", "nearest"),
        synthesizer="choir-bass",
        embedder="choir-tenor",
        receipt=True,
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
    "generate_and_keep_the_model": Generate(
        request_id=REQUEST,
        agent="qwen3:4b",
        model="qwen3:4b",
        messages=(ChatMessage(role="user", content="What is the capital of France?"),),
        sampling=Sampling(),
        fingerprint=FINGERPRINT,
        accepted_at_s=ACCEPTED_AT_S,
        deadline_at_s=DEADLINE_AT_S,
        keep_alive_s=-1.0,
    ),
    "gather": GATHER,
    "gather_in_waves": GATHER.model_copy(
        update={"effort": "bounded", "epsilon": 0.05, "costs": (3_200_000_000.0, 0.0), "lots": FINGERPRINT}
    ),
    "gather_that_may_stay_undecided": GATHER.model_copy(
        update={
            "min_confidence": 0.9,
            "lots": FINGERPRINT,
            "synthesizer": "choir-bass",
            "embedder": "choir-tenor",
            "receipt": True,
        }
    ),
    "summarize": SUMMARIZE,
    "fetch": Fetch(request_id=REQUEST, wait_s=10.0, stream=True, after_sequence=17),
    "cancel": Cancel(request_id=REQUEST),
    "feedback": Feedback(request_id=REQUEST, correct="Paris", topic="capitals"),
    "feedback_that_an_answer_is_wrong": Feedback(request_id=REQUEST, wrong="Lyon"),
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
    "shard_that_guesses_ahead": SHARD.model_copy(update={"draft": "lookup"}),
    "shard_that_is_only_planned": SHARD.model_copy(update={"plan_only": True}),
}
