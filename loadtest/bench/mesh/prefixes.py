"""Conversations over several agents of a model: tasks wait for whom keeps their beginning, or
are pulled at random.

Both ways in turns, in one run. Each conversation has the same long system prompt, and its turns repeat what
was said before. Every agent uses its cache again in both ways; the difference is `prefix_wait`, which is 0
where tasks are pulled at random. `prefilled_tokens` are those of prompts that were computed, whatever else
the machine is busy with.

Rounds are begun as long as they end within BUDGET_S, so that a run takes about eight minutes; the report says
how many there were, and of how many turns the figures are. `CHOIR_BENCH_CONVERSATIONS` (24),
`CHOIR_BENCH_TURNS` (8), `CHOIR_BENCH_AGENTS` (4), `CHOIR_BENCH_ROUNDS` (2), `CHOIR_BENCH_SYSTEM_TOKENS`
(2000) and `CHOIR_BENCH_LAYERS` (2, of width 512; eight take four times as long) make it smaller or larger.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.demo_models.bench_model import write_bench_model
from loadtest.bench.processes import BenchMesh, bench_mesh
from loadtest.bench.report import Report, at_most, rounds_within
from schemas.commands import ChatMessage, Tokenize
from schemas.replies import Result
from services.client.client import Choir

WIDTH = 512
CONTEXT_TOKENS = 4_096
SLOTS_BESIDE = 2
USER_TOKENS, ANSWER_TOKENS = 150, 32
THINKING_S = 1.0
TIMEOUT_S = 900.0
SETTLE_S = 5.0
BUDGET_S = 450.0
WAYS = {"found_again": 0.5, "at_random": 0.0}
WORDS = ("the giraffe", "in the wind", "a tin ring", "their thin hen", "one inner nation", "her other ten")


def _number(name: str, usual: int) -> int:
    return int(os.environ.get(f"CHOIR_BENCH_{name}", usual))


@dataclass(frozen=True)
class Size:
    """How much is asked."""

    conversations: int = field(default_factory=lambda: _number("CONVERSATIONS", 24))
    turns: int = field(default_factory=lambda: _number("TURNS", 8))
    agents: int = field(default_factory=lambda: _number("AGENTS", 4))
    rounds: int = field(default_factory=lambda: _number("ROUNDS", 2))
    system_tokens: int = field(default_factory=lambda: _number("SYSTEM_TOKENS", 2_000))
    layers: int = field(default_factory=lambda: _number("LAYERS", 2))

    @property
    def slots(self) -> int:
        """Of each agent: enough for its part of the conversations, and some."""
        return -(-self.conversations // self.agents) + SLOTS_BESIDE


@dataclass
class Measured:
    """One way of sharing the work: of every turn how soon it began, and what of its prompt was computed."""

    first_token_s: list[float] = field(default_factory=list)
    later_first_token_s: list[float] = field(default_factory=list)
    prefilled_tokens: int = 0
    prompt_tokens: int = 0
    moved: int = 0
    failed: int = 0
    rounds: int = 0

    def figures(self) -> dict[str, Any]:
        """What is told."""
        hundredths = statistics.quantiles(self.first_token_s, n=100)
        return {
            "rounds": self.rounds,
            "turns": len(self.first_token_s),
            "later_turns": len(self.later_first_token_s),
            "first_token_s_p50": round(statistics.median(self.first_token_s), 4),
            "first_token_s_p99": round(hundredths[98], 4),
            "later_turns_first_token_s_p50": round(statistics.median(self.later_first_token_s), 4),
            "prefilled_tokens": self.prefilled_tokens,
            "prompt_tokens": self.prompt_tokens,
            "turns_at_another_agent": self.moved,
            "failed": self.failed,
        }


def run() -> Report:
    """Measures both ways in turns."""
    size = Size()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="choir-bench-") as folder:
        ways = asyncio.run(measure(Path(folder), size))
    found, random_ = (ways[way].figures() for way in WAYS)
    ratios = {
        name: round(found[name] / random_[name], 3)
        for name in (
            "first_token_s_p50",
            "first_token_s_p99",
            "later_turns_first_token_s_p50",
            "prefilled_tokens",
        )
    }
    return Report(
        bench="prefixes",
        raw={**{way: ways[way].figures() for way in WAYS}, "ratio": ratios, "load_before": load_before,
             "load_after": os.getloadavg()[0]},
        targets=(
            at_most("first_token_p50_over_pull_at_random", ratios["first_token_s_p50"], 0.5),
            at_most("first_token_p99_over_pull_at_random", ratios["first_token_s_p99"], 1.0),
            at_most("failed", found["failed"] + random_["failed"], 0),
        ),
        notes=(f"{size}; width {WIDTH}; a second of thinking between turns on average",),
    )  # fmt: skip


async def measure(folder: Path, size: Size) -> dict[str, Measured]:
    """Each round has another system prompt, which nobody keeps; each way has its turn in it."""
    model = await asyncio.to_thread(write_bench_model, layers=size.layers, width=WIDTH)
    ways = {way: Measured() for way in WAYS}
    async with bench_mesh(folder, list(WAYS)) as mesh:
        _start(mesh, size, model)
        await mesh.wait_ready(list(WAYS))
        async with Choir(mesh.url) as client:
            await _all_there(client, size)
            for number in rounds_within(BUDGET_S, size.rounds):
                order = list(WAYS) if number % 2 else list(reversed(WAYS))
                for way in order:
                    await _round(client, way, number, size, ways[way])
                    ways[way].rounds += 1
                    await asyncio.sleep(THINKING_S)
    return ways


def _start(mesh: BenchMesh, size: Size, model: Path) -> None:
    mesh.spawn("services.router")
    mesh.spawn("services.aggregator")
    for way, share in WAYS.items():
        served = {"name": way, "path": str(model), "slots": size.slots, "context_tokens": CONTEXT_TOKENS}
        for number in range(size.agents):
            name = f"{way}-{number}"
            agent = {"name": name, "models": [served], "threads": 1, "prefix_wait": share}
            mesh.spawn("services.agent", env={"CHOIR_AGENT": json.dumps(agent), "CHOIR_INSTANCE": name})


async def _all_there(client: Choir, size: Size) -> None:
    async def are_there() -> bool:
        return sum(node.service == "agent" for node in await client.nodes()) == size.agents * len(WAYS)

    while not await are_there():  # noqa: ASYNC110  (the router is asked)
        await asyncio.sleep(0.2)
    await asyncio.sleep(SETTLE_S)


async def _round(client: Choir, way: str, number: int, size: Size, measured: Measured) -> None:
    drawn = random.Random(f"system {number}")
    system = await _text(client, way, drawn, size.system_tokens)
    users = await _text(client, way, drawn, USER_TOKENS)
    per_turn = len(users)
    conversations = (
        _converse(client, way, random.Random(f"{number}.{one}"), system, per_turn, size, measured)
        for one in range(size.conversations)
    )
    await asyncio.gather(*conversations)


async def _converse(
    client: Choir, way: str, drawn: random.Random, system: str, length: int, size: Size, measured: Measured
) -> None:
    messages = [ChatMessage(role="system", content=system)]
    last = None
    for turn in range(size.turns):
        await asyncio.sleep(drawn.expovariate(1 / THINKING_S))
        messages.append(ChatMessage(role="user", content=_words(drawn, length)))
        started_s, first_s, result = time.perf_counter(), None, None
        async for reply in client.ask_stream(
            messages=messages, model=way, max_tokens=ANSWER_TOKENS, temperature=0, timeout_s=TIMEOUT_S
        ):
            first_s = first_s or time.perf_counter() - started_s
            result = reply if isinstance(reply, Result) else None
        if result is None or result.error is not None or first_s is None:
            measured.failed += 1
            return
        (answer,) = result.answers
        measured.first_token_s.append(first_s)
        if turn:
            measured.later_first_token_s.append(first_s)
            measured.moved += answer.instance != last
        last = answer.instance
        measured.prompt_tokens += answer.prompt_tokens
        measured.prefilled_tokens += answer.prompt_tokens - answer.prompt_tokens_reused
        messages.append(ChatMessage(role="assistant", content=answer.text))


async def _text(client: Choir, way: str, drawn: random.Random, tokens: int) -> str:
    """Words that are about so many tokens."""
    text = _words(drawn, tokens)
    counted = await client.tokenize(Tokenize(model=way, text=text))
    return _words(drawn, round(tokens * tokens / max(1, len(counted.tokens or ()))))


def _words(drawn: random.Random, characters: int) -> str:
    words: list[str] = []
    while sum(map(len, words)) + len(words) < characters:
        words.append(drawn.choice(WORDS))
    return " ".join(words)
