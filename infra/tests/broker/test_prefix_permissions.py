"""In a mesh as users have one: agents may say to one another what they have to, and no client hears of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from infra.demo_models.bench_model import write_bench_model
from infra.testing.choir_up import connect_inside, up
from schemas import subjects
from schemas.commands import ChatMessage
from schemas.nodes.prefixes import PREFIX_SIGNAL, ClaimTask
from schemas.replies import Answer
from services.client.client import Choir

MOST_CONVERSATIONS = 60
THINKING_S = 0.5
QUESTIONS = ("Which?", "And what do they eat?", "How many are there?")
"""Not two: on a quiet machine two agents of two slots each take two tasks in turn."""
CONFIG = """
[broker]
port = 0
[[agents]]
name = "duo"
replicas = 2
threads = 1
prefix_wait = 10
models = [{{ name = "alpha", path = "{path}", slots = 2, context_tokens = 4096 }}]
"""


@pytest.mark.soak
async def test_a_conversation_finds_its_agent_again(tmp_path: Path) -> None:
    model = write_bench_model(tmp_path / "bench.gguf", layers=4, width=512)
    config = tmp_path / "choir.toml"
    config.write_text(CONFIG.format(path=model))
    state = tmp_path / "state"
    state.mkdir()
    claims: list[ClaimTask] = []
    with up(state, config) as url:
        inside = await connect_inside(url)

        async def hear(msg: Any) -> None:
            signal = PREFIX_SIGNAL.validate_json(msg.data)
            if isinstance(signal, ClaimTask):
                claims.append(signal)

        await inside.subscribe(subjects.ALL_PREFIX_SIGNALS, cb=hear)
        async with Choir(url) as client:
            for number in range(MOST_CONVERSATIONS):
                system = ChatMessage(role="system", content=f"Zoo {number} has animals. " * 80)
                turns: list[Answer] = []
                for question in QUESTIONS:
                    asked = (system, ChatMessage(role="user", content=question))
                    result = await client.ask(
                        messages=asked, model="alpha", max_tokens=2, temperature=0, timeout_s=180
                    )
                    turns += result.answers
                    await asyncio.sleep(THINKING_S)
                if claims:
                    break
            told = await client.nodes()
        await inside.close()
    *_, first, second = turns
    assert claims and first.instance == second.instance
    assert second.prompt_tokens_reused > 0.8 * second.prompt_tokens
    assert not any(model.prefixes for node in told for model in node.models)
