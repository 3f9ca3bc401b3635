"""Who ends a process waits for longer than the process needs to give its work back."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from infra.broker import broker
from infra.broker.local_cluster import free_port
from infra.demo_models.bench_model import write_bench_model
from infra.host import state
from infra.host.running import services
from infra.testing.choir_up import connect_inside, starting, wait_until_up
from infra.testing.mesh import completions, eventually, queue_is_empty
from infra.testing.switched_off import switched_off
from schemas import subjects
from schemas.replies import Result, TokenChunk
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.process.stopping import DRAIN_PATIENCE_S, ENDPOINTS_PATIENCE_S
from services.client.client import Choir

ROOT = Path(__file__).resolve().parents[3]
COMPOSE_FILE, UNIT_FILE = ROOT / "compose.yaml", ROOT / "infra" / "deploy" / "systemd" / "choir.service"
SERVICE_STOPS_WITHIN_S = ENDPOINTS_PATIENCE_S + DRAIN_PATIENCE_S
LONG_S, DEADLINE_S = 5 * DRAIN_PATIENCE_S, 600
CONTEXT_TOKENS, MEASURED_TOKENS = 16_384, 32
CONFIG = """
[broker]
port = {port}
[[agents]]
name = "singer"
{agent}
""" + switched_off("aggregator", "summarizer", "metrics")
BUSY = """
models = [{{ name = "red", path = "{path}", slots = 1, context_tokens = {context_tokens} }}]
"""
QUICK = """
backend = "instant"
models = [{ name = "red", reply = "red at last" }]
"""


def test_a_service_that_drains_is_not_killed_before_it_gives_its_work_back() -> None:
    assert services.STOP_DEADLINE_S > SERVICE_STOPS_WITHIN_S


def test_choir_down_waits_for_the_services_and_for_the_broker() -> None:
    assert state.STOP_DEADLINE_S > services.STOP_DEADLINE_S + broker.STOP_DEADLINE_S


def test_neither_a_container_nor_a_unit_is_killed_before_its_services_give_their_work_back() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    composed = yaml.safe_load(COMPOSE_FILE.read_text())
    periods = [service.get("stop_grace_period") for service in composed["services"].values()]
    stated = [float(period.removesuffix("s")) for period in periods if period is not None]
    (unit,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT_FILE.read_text(), re.MULTILINE)
    assert stated and min(*stated, float(unit)) > state.STOP_DEADLINE_S, "each runs `choir up`"


class Told:
    """What one who asks for a text hears of it."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.text = ""
        self.restarts = 0

    async def listen(self, choir: Choir, max_tokens: int) -> Result:
        """The result of a request that is called `song`."""
        asked = choir.ask_stream(
            "Sing on and on.", model="red", max_tokens=max_tokens, request_id="song", timeout_s=DEADLINE_S
        )
        async for reply in asked:
            if isinstance(reply, Result):
                return reply
            assert isinstance(reply, TokenChunk)
            self.text = reply.text if reply.restarted else self.text + reply.text
            self.restarts += reply.restarted
            self.began.set()
        raise AssertionError("a stream without a result")


@pytest.mark.soak
async def test_a_host_that_is_stopped_in_the_midst_of_a_long_text_gives_it_back_and_loses_nothing(
    tmp_path: Path,
) -> None:
    """Who asked waits on, and is answered once, by the agent that is there after the restart."""
    port = free_port()
    model = write_bench_model(tmp_path / "red.gguf", layers=12, width=1024)
    busy, quick = tmp_path / "busy.toml", tmp_path / "quick.toml"
    long = BUSY.format(path=model, context_tokens=CONTEXT_TOKENS)
    busy.write_text(CONFIG.format(port=port, agent=long))
    quick.write_text(CONFIG.format(port=port, agent=QUICK))
    told = Told()
    with starting(tmp_path, busy) as process:
        mesh = await asyncio.to_thread(wait_until_up, tmp_path, process)
        async with Choir(mesh.url) as choir:
            # Given an agent that is at a text which takes much longer than a service may take to stop
            began_s = time.monotonic()
            await choir.ask("Sing.", model="red", max_tokens=MEASURED_TOKENS, timeout_s=DEADLINE_S)
            tokens = round(LONG_S * MEASURED_TOKENS / (time.monotonic() - began_s))
            asked = asyncio.create_task(told.listen(choir, min(tokens, CONTEXT_TOKENS - 1_000)))
            await asyncio.wait_for(told.began.wait(), DEADLINE_S)
            # When its host is stopped
            process.terminate()
            assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
            log = "".join(one.read_text() for one in (tmp_path / "up.log", tmp_path / "choir" / "up.log"))
            # Then nobody is killed: the agent has given the text back
            assert "did not stop within" not in log and "SIGKILL" not in log
            assert "gives unfinished work back" in log
            assert not asked.done()
            # And whoever has the model after that answers, once
            with starting(tmp_path, quick) as again:
                await asyncio.to_thread(wait_until_up, tmp_path, again)
                result = await asyncio.wait_for(asked, DEADLINE_S)
                client = await connect_inside(mesh.url)
                await eventually(lambda: queue_is_empty(client), DEADLINE_S)
                notes = Bucket(client, subjects.ATTEMPTS_BUCKET, BYTES)
                attempts = {(await notes.get(key)).value for key in await notes.keys(">")}
                stored = await client.jetstream().stream_info(
                    subjects.RESULTS_STREAM, subjects_filter=subjects.result("song")
                )
                completed = [one for one in await completions(client) if one.request_id == "song"]
                await client.close()
    assert (result.text, told.text, told.restarts > 0) == ("red at last", "red at last", True)
    assert attempts == {b"refused"}
    assert (stored.state.subjects, len(completed)) == ({subjects.result("song"): 1}, 1)
