"""The load test as it is run: on the command line, against real meshes that live, die and are tormented."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import duckdb
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.broker.broker import Broker
from infra.testing.plugin import SpawnService, connect
from loadtest.__main__ import main
from loadtest.faults import NoMesh
from loadtest.generate.arrivals import Rate
from loadtest.generate.generator_pool import GeneratorPool
from loadtest.generate.plan import LoadPlan
from loadtest.generate.workloads import AskOptions

pytestmark = pytest.mark.long

DEADLINE_S = 240.0
INSTANT = """
[broker]
port = 0
[summarizer]
replicas = 0
[metrics]
enabled = false
[[agents]]
name = "one"
backend = "instant"
models = [{ name = "alpha", reply = "So it is said", delay_ms = 20 }]
[[agents]]
name = "two"
backend = "instant"
models = [{ name = "beta", reply = "So it is not", delay_ms = 40 }]
"""


class Loadtest:
    """`python -m loadtest` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *arguments: str) -> Loadtest:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "loadtest", *arguments)
        return cls(await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe))

    async def ended(self) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, err = await self.process.communicate()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


async def loadtest(*arguments: str) -> tuple[int, str, str]:
    return await (await Loadtest.start(*arguments)).ended()


@pytest_asyncio.fixture
async def live_url(mesh_url: str, connection: Client, spawn_service: SpawnService) -> str:
    """A mesh of two instant models."""
    services = [spawn_service("router"), spawn_service("aggregator")]
    for model in ("alpha", "beta"):
        models = [{"name": model, "reply": "So it is said", "delay_ms": 10}]
        services.append(spawn_service("agent", agent={"name": model, "backend": "instant", "models": models}))
    await asyncio.gather(*(service.wait_ready(connection) for service in services))
    return mesh_url


async def test_a_run_measures_and_leaves_everything_in_files(live_url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = f"--url {live_url} --rate 40 --duration 2 --warm-up 1 --out {out} --json"
    mix = "--workload single:0.5,ensemble:0.5 --goodput ttft:1000 e2e:2000 --fail-if e2e.p50>1 lost>0"
    code, printed, err = await loadtest(*options.split(), *mix.split())
    assert (code, err) == (1, ""), "half of the requests took more than a millisecond"
    summary = json.loads(printed)
    assert summary["failed_if"] == ["e2e.p50 > 1"]
    assert summary["answered"] == summary["requests"] > 20
    assert (summary["lost"], summary["doubled"], summary["failed"]) == (0, 0, 0)
    assert set(summary["workloads"]) == {"single", "ensemble"}
    metrics = summary["metrics"]
    assert 0 < metrics["ttft"]["p50"] < metrics["e2e"]["p50"] <= metrics["e2e_intended"]["p50"]
    assert metrics["itl"]["n"] > 0 < summary["goodput"]

    names = {path.name for path in out.iterdir()}
    assert names == {
        *("config.json", "summary.json", "summary.csv", "requests.csv", "requests.parquet", "run.duckdb"),
        *("charts", "report.html"),
    }
    with duckdb.connect(str(out / "run.duckdb"), read_only=True) as database:
        counted = database.execute("SELECT count(*) FROM requests WHERE intended_s >= 1").fetchone()
        formulas = dict(database.execute("FROM columns").fetchall())
    assert counted == (summary["requests"],)
    assert formulas["ttft"] == "first token - send"
    page = (out / "report.html").read_text()
    assert "Load test" in page
    loaded = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "src=" not in loaded, "it loads nothing"
    assert "<link" not in loaded
    assert all(
        (out / "charts" / f"{name}.png").stat().st_size > 5_000 for name in ("latency_over_time", "goodput")
    )


@pytest.mark.soak
async def test_ctrl_c_ends_a_run_and_keeps_what_it_has(live_url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = await Loadtest.start(
        "--url", live_url, "--rate", "50", "--duration", "60", "--warm-up", "0", "--out", str(out)
    )
    assert run.process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        while b"answered" not in (said := await run.process.stderr.readline()):
            assert said, "it has ended"
    run.process.send_signal(signal.SIGINT)
    code, _, err = await run.ended()
    assert code == 130
    assert "what was measured is kept" in err
    assert json.loads((out / "summary.json").read_text())["answered"] > 0


@pytest.mark.soak
async def test_a_mesh_that_dies_half_way_leaves_partial_results_and_one_clear_line(
    own_broker: Broker, spawn_service: SpawnService, tmp_path: Path
) -> None:
    url, out = own_broker.url, tmp_path / "out"
    agent = {"name": "a", "backend": "instant", "models": [{"name": "alpha"}]}
    started = (
        spawn_service("router", url=url),
        spawn_service("aggregator", url=url),
        spawn_service("agent", url=url, agent=agent),
    )
    client = await connect(url)
    for service in started:
        await service.wait_ready(client)
    run = await Loadtest.start(
        *("--url", url, "--rate", "30", "--duration", "5", "--warm-up", "0", "--timeout", "4"),
        *("--workload", "single", "--models", "alpha", "--out", str(out)),
    )
    seen = asyncio.Event()
    count = 0

    async def note(_msg: Msg) -> None:
        nonlocal count
        count += 1
        if count == 30:
            seen.set()

    await client.subscribe("choir.stored.result.>", cb=note)
    async with asyncio.timeout(DEADLINE_S):
        await seen.wait()
    await client.close()
    own_broker.kill()
    code, printed, err = await run.ended()
    assert code == 1, err
    assert "warning: nothing was answered after second" in printed, err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["answered"] >= 20
    assert summary["failed"] > 20


@pytest.mark.soak
async def test_a_mesh_of_its_own_loses_and_doubles_nothing_when_an_agent_is_killed(tmp_path: Path) -> None:
    config, out = tmp_path / "choir.toml", tmp_path / "out"
    config.write_text(INSTANT)
    code, printed, err = await loadtest(
        *("--config", str(config), "--rate", "20", "--duration", "3", "--warm-up", "0", "--out", str(out)),
        *("--workload", "single:0.5,ensemble:0.5", "--fail-if", "lost>0", "doubled>0"),
        *("--chaos", "kill-agent@1"),
    )
    assert code == 0, (printed, err)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["requests"] > 30 and summary["answered"] > 0
    assert [mark["text"].split()[0] for mark in summary["marks"]] == ["killed"]
    # Whoever waits is told what is going on, in this order
    told = [
        *("starting a mesh of the demo models", "the mesh is ready after", "loading alpha, beta"),
        *("requests measured; writing them down", "charts ...", "stopping the mesh"),
    ]
    places = [err.find(line) for line in told]
    assert places == sorted(places) and places[0] >= 0, err


@pytest.mark.soak
@pytest.mark.alone
async def test_a_mesh_of_its_own_is_tormented_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    config, out = tmp_path / "choir.toml", tmp_path / "out"
    config.write_text(INSTANT)
    code, printed, err = await loadtest(
        *("--config", str(config), "--rate", "25", "--duration", "7", "--warm-up", "0", "--out", str(out)),
        *("--workload", "single:0.5,ensemble:0.5", "--fail-if", "lost>0", "doubled>0"),
        *("--chaos", "kill-agent@1.5,pause-aggregator@3:1,restart-broker@5"),
    )
    assert code == 0, (printed, err)
    summary = json.loads((out / "summary.json").read_text())
    # While the broker is away a busy machine may refuse a request, and by no other word than these.
    assert set(summary["errors"]) <= {"broker_unavailable", "overloaded"}, summary["errors"]
    assert summary["answered"] + sum(summary["errors"].values()) == summary["requests"] > 150
    marks = sorted(summary["marks"], key=lambda mark: mark["at_s"])
    assert [mark["text"].split()[0] for mark in marks] == ["killed", "paused", "killed"]
    assert "killed the broker" in printed


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--rate", "0"), 2, "--rate"),
        (("--rate", "-3"), 2, "above 0"),
        (("--duration", "nan"), 2, "--duration"),
        (("--workload", "duet"), 2, "single, ensemble, chain, pipeline"),
        (("--arrivals", "tidal"), 2, "poisson"),
        (("--arrivals", "ramp"), 2, "--ramp-to"),
        (("--ramp-to", "5"), 2, "--arrivals ramp"),
        (("--goodput", "speed:3"), 2, "ttft"),
        (("--fail-if", "joy>3"), 2, "e2e"),
        (("--chaos", "kill-queen@3"), 2, "restart-broker"),
        (("--prompts", "psalms"), 2, "sharegpt"),
        (("--words", "9:3"), 2, "--words"),
        (("--words", "many"), 2, "--words"),
        (("--max-tokens", "0"), 2, "--max-tokens"),
        (("--timeout", "0"), 2, "--timeout"),
        (("--warm-up", "-1"), 2, "--warm-up"),
        (("--url", "nats://127.0.0.1:9"), 3, "no broker answers"),
        (("compare", "nowhere", "nowhere"), 2, "nowhere"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(
    arguments: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("loadtest: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


async def test_a_model_that_is_not_there_is_named_with_those_that_are(live_url: str) -> None:
    code, _, err = await loadtest("--url", live_url, "--models", "gamma")
    assert code == 3
    assert "gamma" in err
    assert "alpha, beta" in err


@pytest_asyncio.fixture
async def echo(connection: Client) -> AsyncIterator[str]:
    """A subject on which every request is sent back."""

    async def reply(msg: Msg) -> None:
        await msg.respond(msg.data)

    subscription = await connection.subscribe("test.echo", cb=reply)
    await connection.flush()
    yield "test.echo"
    await subscription.unsubscribe()


async def test_several_processes_share_a_run(echo: str, mesh_url: str, tmp_path: Path) -> None:
    plan = LoadPlan("run", AskOptions(models=("m",)), rate=Rate(200.0), requests=200, processes=2)
    measured = await GeneratorPool(plan, mesh_url, tmp_path, target=echo).run(lambda _: None)
    assert measured.good.all()
    assert sorted(measured.number) == list(range(len(measured)))
    assert set(measured.process) == {0, 1}
    assert len(measured.cpu_shares) == 2


async def test_generators_that_find_no_broker_say_so(tmp_path: Path) -> None:
    plan = LoadPlan("run", AskOptions(models=("m",)))
    with pytest.raises(NoMesh, match="no broker answers"):
        await GeneratorPool(plan, "nats://127.0.0.1:9", tmp_path).run(lambda _: None)
