"""A model in stages on one host, as a user has it: `choir up --shard`, `choir shard`, `choir models`.

One mesh for all tests here: a pipeline of two stages with a standby, and the same file whole in an agent. The
last test ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.testing.choir_up import clean_environment, quick_choir, wait_until_up
from schemas.replies import Result, TokenChunk
from services.cli.tests.conftest import Cli
from services.client.client import Choir

pytestmark = pytest.mark.long

MODEL, WHOLE = "choir-llama", "whole"
DEADLINE_S = 180.0
POLL_S = 0.1
CONFIG = """
[broker]
port = 0
[[agents]]
name = "whole"
threads = 1
models = [{ name = "whole", path = "demo:choir-llama", slots = 8 }]
"""
PROMPTS = (
    "What is the capital of Kenya?",
    "What is a young kangaroo called?",
    "Tell me all that you know of gold, of the moon, and of every animal.",
    "Count from one to a hundred.",
)


@dataclass(frozen=True)
class Host:
    """What `choir up --shard` runs."""

    up: subprocess.Popen[bytes]
    url: str
    log: Path

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.up.pid).children(recursive=True)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("shard")
    config, log = folder / "choir.toml", folder / "up.log"
    config.write_text(CONFIG)
    with log.open("wb") as output:
        up = subprocess.Popen(
            quick_choir("up", "--config", str(config), "--shard", f"demo:{MODEL}=2"),
            env=clean_environment(folder, XDG_CACHE_HOME=str(folder / "cache")),
            stdout=output,
            stderr=output,
        )
    try:
        yield Host(up, wait_until_up(folder, up).url, log)
    finally:
        if up.poll() is None:
            up.send_signal(signal.SIGTERM)
        up.wait(DEADLINE_S)


@pytest.fixture
def shard_cli(offline_cli: Cli, host: Host, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command line in this process, against this host's mesh."""
    monkeypatch.setenv("CHOIR_MESH__URL", host.url)
    return offline_cli


def pipeline(cli: Cli) -> dict[str, Any]:
    """The pipeline as `choir models --json` has it."""
    found: dict[str, Any] = json.loads(cli("models", "--json").out)["pipelines"][0]
    return found


def until(cli: Cli, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The pipeline, once it is as wanted."""
    end_s = time.monotonic() + DEADLINE_S
    while not wanted(now := pipeline(cli)):
        assert time.monotonic() < end_s, now
        time.sleep(POLL_S)
    return now


def until_ready(cli: Cli, epoch: int = 0) -> dict[str, Any]:
    """The pipeline, once all its stages are ready in an epoch after this one."""
    return until(cli, lambda now: now["state"] == "ready" and now["epoch"] > epoch)


def test_up_is_ready_when_the_split_model_can_be_asked_and_lists_it(host: Host) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while "ready   nats" not in (said := host.log.read_text()):
        assert time.monotonic() < end_s, said
        time.sleep(POLL_S)
    assert f"models  {MODEL}, {WHOLE}\n" in said


def test_a_split_model_says_what_the_whole_one_says(shard_cli: Cli) -> None:
    for prompt in PROMPTS:
        asked = [shard_cli("ask", prompt, "--model", model, "--max-tokens", "60") for model in (MODEL, WHOLE)]
        assert asked[0] == asked[1]
        assert asked[0].code == 0 and asked[0].out.strip()


def test_models_shows_stages_nodes_and_what_a_token_takes(shard_cli: Cli) -> None:
    # Given a pipeline that has generated something
    shard_cli("ask", PROMPTS[2], "--model", MODEL, "--max-tokens", "60")
    now = until(shard_cli, lambda now: all(stage.get("step_ms") for stage in now["stages"]))
    # Then what was predicted and what was measured stand side by side
    assert now["predicted_ms"] > sum(stage["predicted_ms"] for stage in now["stages"]) > 0
    assert len(now["standbys"]) == 1
    shown = shard_cli("models").out
    lines = [line.split() for line in shown.splitlines()]
    first, second = now["stages"]
    row = next(line for line in lines if line[:3] == [MODEL, "0", f"0-{first['end_layer'] - 1}"])
    assert row[3] == first["instance"] and row[5] == "ready"
    assert row[6:] == [f"{first['predicted_ms']:.2f}", f"{first['step_ms']:.2f}"]
    assert any(line[:3] == ["1", f"{second['first_layer']}-3", second["instance"]] for line in lines)
    assert any(line[:2] == ["all", "ready"] for line in lines)
    assert f"{MODEL} ready" in shard_cli("status").out
    nodes = shard_cli("nodes").out
    assert f"{MODEL}, stage 1" in nodes and "no stage" in nodes


def test_shard_waits_until_another_split_can_be_asked(shard_cli: Cli) -> None:
    # When a user wants three stages, and the exact places of them
    nodes = [stage["instance"] for stage in pipeline(shard_cli)["stages"]] + pipeline(shard_cli)["standbys"]
    assign = ",".join(reversed(nodes))
    outcome = shard_cli("shard", MODEL, "--assign", assign, "--force", "--slots", "4")
    # Then it says what is predicted, tells of every stage, and ends when the model can be asked
    assert outcome.code == 0, outcome
    assert outcome.out.startswith("3 stages: ")
    assert all(f"stage {number} of 3 ready" in outcome.out for number in range(3))
    assert [stage["instance"] for stage in pipeline(shard_cli)["stages"]] == list(reversed(nodes))
    answers = [shard_cli("ask", PROMPTS[0], "--model", model).out for model in (MODEL, WHOLE)]
    assert answers[0] == answers[1]
    # Without a number the planner has as many as pay off, and says what it weighed
    outcome = shard_cli("shard", MODEL, "--slots", "4")
    count, told = len(pipeline(shard_cli)["stages"]), " ".join(outcome.out.split())
    assert told.startswith("1 stage: " if count == 1 else f"{count} stages: ") and outcome.code == 0
    assert "tokens/s at 1 / 2 / 4 streams: " in told
    assert ("not split, as that gains too little" in told) == (count == 1)
    assert shard_cli("ask", PROMPTS[0], "--model", MODEL).out == answers[1]
    # And as one document, for two again
    document = json.loads(shard_cli("shard", MODEL, "--stages", "2", "--force", "--json").out)
    assert len(document["plan"]["stages"]) == 2
    assert pipeline(shard_cli)["state"] == "ready"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("larger", "--stages", "2"), 1, f"model: no live stage service offers 'larger'; offered: {MODEL}"),
        ((MODEL, "--stages", "9"), 2, "can have 1 to 4 stages, not 9"),
        ((MODEL, "--stages", "4", "--force"), 2, "stages: 4 stages need as many nodes, and 3 offer"),
        ((MODEL, "--assign", "attic,cellar"), 2, "assign: no node 'attic' offers choir-llama; nodes: "),
        ((MODEL, "--assign", "a,b", "--stages", "3"), 2, "assign: 2 nodes for 3 stages"),
        ((MODEL, "--context", "999999"), 2, "context_tokens: choir-llama was made for"),
        ((MODEL, "--stages", "0"), 2, "--stages"),
        (("larger", "--remove"), 1, f"runs in no pipeline; those that do: {MODEL}"),
    ],
)
def test_what_cannot_be_placed_is_said_with_the_way_out(
    shard_cli: Cli, arguments: tuple[str, ...], code: int, said: str
) -> None:
    before = until(shard_cli, lambda now: now["state"] == "ready" and len(now["standbys"]) == 1)["epoch"]
    outcome = shard_cli("shard", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err, outcome.err
    assert pipeline(shard_cli)["epoch"] == before


def test_up_refuses_a_shard_that_makes_no_sense(offline_cli: Cli) -> None:
    outcome = offline_cli("up", "--shard", MODEL)
    assert outcome.code == 2 and "is not MODEL=N" in outcome.err


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_a_stage_that_is_killed_in_the_middle_of_a_text_changes_no_word(
    shard_cli: Cli, host: Host, number: int
) -> None:
    # Given two stages and a free instance, and the texts of the whole model
    before = until_ready(shard_cli)
    assert len(before["stages"]) == 2 and before["standbys"]

    async def texts_of(model: str, victim: str | None = None) -> list[str]:
        async with Choir(host.url) as mesh:
            first_words: asyncio.Queue[str] = asyncio.Queue()

            async def one(prompt: str) -> str:
                stream = mesh.ask_stream(prompt, model=model, max_tokens=200, timeout_s=DEADLINE_S)
                async for reply in stream:
                    if isinstance(reply, TokenChunk):
                        first_words.put_nowait(reply.text)
                    elif isinstance(reply, Result):
                        text = reply.text or ""
                return text

            def ask() -> list[asyncio.Task[str]]:
                return [asyncio.create_task(one(prompt)) for prompt in PROMPTS]

            if victim is None:
                return await asyncio.gather(*ask())
            pid = next(node.pid for node in await mesh.nodes() if node.instance == victim)
            while True:
                asked = ask()
                await asyncio.wait_for(first_words.get(), DEADLINE_S)
                os.kill(pid, signal.SIGSTOP)
                if not any(task.done() for task in asked[2:]):
                    os.kill(pid, signal.SIGKILL)
                    return await asyncio.gather(*asked)
                # This process stood still for longer than the long texts took: they are asked for again
                os.kill(pid, signal.SIGCONT)
                await asyncio.gather(*asked)
                first_words = asyncio.Queue()

    expected = asyncio.run(texts_of(WHOLE))
    # When a stage is killed after the first words
    found = asyncio.run(texts_of(MODEL, before["stages"][number]["instance"]))
    # Then every text is as if nothing had happened, and the plan has a next epoch without it
    assert found == expected
    assert until_ready(shard_cli, before["epoch"])["epoch"] > before["epoch"]


def test_ctrl_c_ends_every_process(host: Host) -> None:
    children = host.children()
    assert len(children) >= 7  # broker, aggregator, summarizer, router, agent, three stages
    host.up.send_signal(signal.SIGINT)
    assert host.up.wait(DEADLINE_S) == 0, host.log.read_text()[-2000:]
    _, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert not alive
