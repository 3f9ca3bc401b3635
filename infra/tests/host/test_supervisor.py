"""`choir up`, with real services and agents that answer at once."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest
import pytest_asyncio
from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig
from nats.js.errors import NotFoundError

from infra.broker.broker import Broker
from infra.host.children.child import ServiceCommand
from infra.host.children.fork_server import FORKS
from infra.host.children.processes import POLL_S, ended, until
from infra.host.running.services import HostServices
from infra.host.supervisor import Supervisor, run_host
from infra.testing.plugin import connect
from infra.testing.switched_off import switched_off
from infra.tests.config_text import settings_of
from schemas import subjects
from schemas.broker.catalog import LEASE_TTL_S
from schemas.errors import ConfigurationError, InternalError, MeshUnreachable
from services.aggregator.settings import AggregatorSection
from services.chassis.registry.directory import Directory
from services.client.finding.local_mesh import running_mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

CONFIG = """
[broker]
port = 0

[[agents]]
name = "alice"
backend = "instant"
models = [{ name = "blue", reply = "blue" }]

[[agents]]
name = "bob"
backend = "instant"
models = [{ name = "red", reply = "red" }]

[[ensembles]]
name = "council"
members = ["blue", "red"]
quorum = 1
""" + switched_off("summarizer", "metrics")

ONE_AGGREGATOR = "[broker]\nport = 0\n" + switched_off("router", "summarizer", "metrics")

JOINED = (
    switched_off("router", "aggregator", "summarizer", "metrics") + "[broker]\nembedded = false\n[mesh]\n"
)
NO_AGGREGATOR = AggregatorSection(replicas=0)

REPOSITORY = Path(__file__).resolve().parents[3]
DEADLINE_S = 180.0
LONG_S = 2 * DEADLINE_S
HUNG_S = 12.0


class Mesh:
    """A running supervisor, and all that it has said."""

    def __init__(self, folder: Path, text: str = CONFIG) -> None:
        self.said: list[str] = []
        self.state = folder / "state"
        self.supervisor = Supervisor(
            settings_of(folder, text),
            state=self.state,
            forward=lambda instance, line: self.said.append(f"{instance}: {line}"),
        )

    def pid_of(self, instance: str) -> int | None:
        """The process of an instance, while it has one."""
        return next(child.pid for child in self.supervisor.children if child.name == instance)

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Ask the mesh something, until somebody listens."""
        nc = await connect(self.supervisor.url)
        try:
            reply = await nc.request(subjects.ASK, json.dumps(request).encode(), timeout=60)
        finally:
            await nc.close()
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def answers(self, model: str) -> bool:
        """Whether a model can be asked."""
        try:
            return (await self.ask(prompt="colour?", model=model)).get("text") == model
        except nats.errors.Error:
            return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """One mesh for the tests of this module: broker, router, aggregator, two agents."""
    running = Mesh(tmp_path_factory.mktemp("mesh"))
    await running.supervisor.start()
    yield running
    await running.supervisor.stop()


async def eventually_answers(mesh: Mesh, model: str, deadline_s: float = DEADLINE_S) -> bool:
    """Whether a model can be asked before the deadline."""
    end_s = time.monotonic() + deadline_s
    while not await mesh.answers(model):
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def test_the_mesh_answers_as_soon_as_start_returns(mesh: Mesh) -> None:
    assert (await mesh.ask(prompt="Which colour?", model="blue"))["text"] == "blue"
    assert any("ready at nats://127.0.0.1:" in line for line in mesh.said)
    assert mesh.supervisor.problems == []
    assert (await mesh.ask(prompt="Which colour?", model="council"))["topology"] == "ensemble"


async def test_workers_are_ready_before_the_router_is_started(mesh: Mesh) -> None:
    ready = [line.split(":")[0] for line in mesh.said if "ready " in line and not line.startswith("choir")]
    assert ready[-1].endswith("router-1")
    assert {"alice", "bob"} <= set(ready[:-1])


async def test_other_commands_find_it_and_a_second_one_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    found = running_mesh(mesh.state)
    assert found is not None
    assert (found.url, found.pid) == (mesh.supervisor.url, os.getpid())
    second = Supervisor(settings_of(tmp_path, CONFIG), state=mesh.state, forward=lambda *_: None)
    with pytest.raises(ConfigurationError, match="already running"):
        await second.start()
    assert running_mesh(mesh.state) == found


async def test_a_killed_agent_is_started_again_and_answers(mesh: Mesh) -> None:
    before = mesh.pid_of("bob")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert await until(lambda: mesh.pid_of("bob") not in (None, before), DEADLINE_S)
    assert await eventually_answers(mesh, "red")
    assert "bob: was ended by SIGKILL; starts again in 0.5 s" in mesh.said


async def test_a_killed_broker_is_started_again_with_all_its_streams(mesh: Mesh) -> None:
    broker = mesh.supervisor.broker
    assert broker is not None
    os.kill(broker.pid, signal.SIGKILL)
    assert await until(lambda: any("the broker died" in line for line in mesh.said), DEADLINE_S)
    assert await until(lambda: broker.alive, DEADLINE_S)
    assert await eventually_answers(mesh, "blue")


# nats-py leaves a connection open on which a broker that stands still never said who it is. This is seen when
# it is collected: here, and not in the midst of another test.
@pytest.mark.filterwarnings("ignore:.*StreamWriter.__del__:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.soak
async def test_a_service_that_hangs_is_started_again_and_one_whose_broker_is_away_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a mesh whose patience is shorter than usual, and longer than a busy machine makes a process wait
    monkeypatch.setattr("infra.host.supervisor.HUNG_AFTER_S", HUNG_S)
    mesh = Mesh(tmp_path, f"{CONFIG}[aggregator]\nreplicas = 0\n")
    await mesh.supervisor.start()
    try:
        pids = {child.name: child.pid for child in mesh.supervisor.children}
        # When its broker stands still for longer than that, nobody is blamed
        broker, directory = mesh.supervisor.broker, mesh.supervisor._directory
        assert broker is not None and directory is not None
        broker.pause()
        await asyncio.sleep(max(HUNG_S, LEASE_TTL_S) + 3.0)  # longer than the patience: nothing is to happen
        assert {child.name: child.pid for child in mesh.supervisor.children} == pids
        broker.resume()
        assert await until(lambda: len(directory.nodes) >= len(pids), DEADLINE_S)
        assert await eventually_answers(mesh, "blue", LONG_S)
        # When one service stands still while the others live, it is ended and started again
        os.kill(pids["bob"] or 0, signal.SIGSTOP)
        assert await until(lambda: mesh.pid_of("bob") not in (None, pids["bob"]), LONG_S)
        assert any(f"bob: lives, and has not been heard of for {HUNG_S:.0f} s" in line for line in mesh.said)
        assert await eventually_answers(mesh, "red", LONG_S)
        others = {child.name: child.pid for child in mesh.supervisor.children if child.name != "bob"}
        assert others == {name: pid for name, pid in pids.items() if name != "bob"}
    finally:
        await mesh.supervisor.stop()
        gc.collect()


async def test_nothing_is_left_after_stop(tmp_path: Path) -> None:
    # Given a mesh of a broker and an aggregator
    supervisor = Supervisor(
        settings_of(tmp_path, ONE_AGGREGATOR),
        state=tmp_path / "state",
        forward=lambda *_: None,
    )
    await supervisor.start()
    assert supervisor.broker is not None
    pids = [supervisor.broker.pid, *(child.pid or 0 for child in supervisor.children)]
    assert len(pids) == 2
    # When it is stopped (even twice)
    await supervisor.stop()
    await supervisor.stop()
    # Then no process and no state file is left
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert running_mesh(tmp_path / "state") is None


async def test_settings_that_a_service_refuses_end_the_start_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(settings_of(tmp_path, ONE_AGGREGATOR), state=tmp_path / "state")
    monkeypatch.setenv("CHOIR_AGGREGATOR__SLOTS", "-1")
    with pytest.raises(ConfigurationError, match=r"aggregator-1 cannot run(.|\n)*aggregator.slots"):
        await supervisor.start()
    assert supervisor.broker is not None and not supervisor.broker.alive


async def test_a_service_that_dies_again_and_again_is_not_waited_for(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.host.running.services.MOST_DEATHS", 2)
    program = [sys.executable, "-c", "import sys; print('no memory'); sys.exit(1)"]
    command = ServiceCommand("aggregator", "feeble", program, dict(os.environ))
    services, nc = HostServices(lambda _instance, _line: None), await connect(mesh.supervisor.url)
    try:
        with pytest.raises(InternalError, match="feeble is not ready; it last wrote:\nno memory"):
            await services.start([command], Directory(nc))
    finally:
        await services.stop()
        await nc.close()


async def test_a_broker_that_refuses_the_password_is_not_called_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.host.operator_connection.CONNECT_DEADLINE_S", 2.0)
    async with Broker(tmp_path / "broker", user="choir", password="right") as broker:
        text = f"{JOINED}url = '{broker.url}'\nuser = 'choir'\npassword = 'wrong'\n"
        with pytest.raises(ConfigurationError, match=r"in as user 'choir': .*set user and password"):
            await Supervisor(settings_of(tmp_path, text), state=tmp_path / "state").start()


SAME_NAMES = {
    "agent": '[[agents]]\nname = "alice"\nbackend = "instant"\nmodels = [{ name = "blue", reply = "b" }]\n',
    "shard_stage": (
        '[[stages]]\nname = "alice"\nthreads = 1\nmodels = [{ name = "red", path = "demo:choir-llama" }]\n'
    ),
}


@pytest.mark.parametrize("service", SAME_NAMES)
async def test_a_name_that_another_host_s_living_instance_has_is_refused_and_its_host_is_told(
    tmp_path: Path, service: str
) -> None:
    # Given two hosts of one choir.toml and one mesh
    async with Broker(tmp_path / "broker") as broker:
        settings = settings_of(tmp_path, f"{SAME_NAMES[service]}{JOINED}url = '{broker.url}'\n")
        first, second, third = (
            Supervisor(settings, state=tmp_path / state, forward=lambda *_: None)
            for state in ("first", "second", "second")
        )
        # When both are started, then the second is refused, and says who has the name
        await first.start()
        with pytest.raises(ConfigurationError, match=f"{service} 'alice' runs already, on host"):
            await second.start()
        (child,) = first.children
        nc = await connect(broker.url)
        directory = Directory(nc)
        await directory.start()
        assert [lease.pid for lease in directory.nodes] == [child.pid]
        # And it has the name when the first is gone
        await first.stop()
        await third.start()
        await eventually_seen(directory, third.children[0].pid)
        await third.stop()
        await nc.close()


async def eventually_seen(directory: Directory, pid: int | None) -> None:
    """Returns when the one instance of the mesh is this process."""
    assert pid is not None
    assert await until(lambda: [lease.pid for lease in directory.nodes] == [pid], DEADLINE_S)


async def test_streams_that_cannot_be_made_after_a_restart_are_tried_again(
    tmp_path: Path,
) -> None:
    # Given a mesh that has joined a broker elsewhere
    said: list[str] = []
    broker = Broker(tmp_path / "broker")
    await broker.start()
    supervisor = Supervisor(
        settings_of(tmp_path, f"{JOINED}url = '{broker.url}'\n"),
        state=tmp_path / "state",
        forward=lambda _, line: said.append(line),
    )
    await supervisor.start()
    # When the broker comes back with a stream that is in the way
    port, broker.port = broker.port, 0
    await broker.restart()
    nc = await connect(broker.url)
    in_the_way = StreamConfig(name=subjects.TOKENS_STREAM, subjects=["elsewhere"])
    await nc.jetstream().add_stream(in_the_way)
    await nc.close()
    broker.port = port
    await broker.restart()
    # Then this is told, and what is missing is made as soon as that stream is gone
    assert await until(lambda: any("TOKENS exists with another" in line for line in said), DEADLINE_S)
    nc = await connect(broker.url)
    js = nc.jetstream()
    await js.delete_stream(subjects.TOKENS_STREAM)
    assert await eventually_has(js, subjects.TOKENS_STREAM)
    assert (await js.stream_info(subjects.TOKENS_STREAM)).config.storage == StorageType.MEMORY
    assert await eventually_has(js, subjects.bucket_stream(subjects.NODES_BUCKET))
    await nc.close()
    await supervisor.stop()
    await broker.stop()


async def eventually_has(js: JetStreamContext, stream: str) -> bool:
    """Whether the broker has a stream before the deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s:
        try:
            await js.stream_info(stream)
            return True
        except NotFoundError:
            await asyncio.sleep(POLL_S)
    return False


async def test_a_broker_that_lets_anybody_in_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given settings that have come round the check, and a broker whose accounts are as on loopback
    monkeypatch.setattr("infra.host.credentials.is_loopback", lambda _host: True)
    settings = settings_of(tmp_path, ONE_AGGREGATOR)
    everywhere = settings.broker.model_copy(update={"host": "0.0.0.0"})
    supervisor = Supervisor(
        settings.model_copy(update={"broker": everywhere}), state=tmp_path / "state", forward=lambda *_: None
    )
    # When it is started, then it says that anybody gets in, and stops
    with pytest.raises(ConfigurationError, match="lets anybody in without credentials"):
        await supervisor.start()
    assert supervisor.broker is not None and not supervisor.broker.alive
    # And with a user, whom alone it lets in, it starts
    mesh = settings.mesh.model_copy(update={"user": "choir", "password": "secret"})
    guarded = Supervisor(
        settings.model_copy(update={"broker": everywhere, "mesh": mesh, "aggregator": NO_AGGREGATOR}),
        state=tmp_path / "state",
        forward=lambda *_: None,
    )
    await guarded.start()
    await guarded.stop()


async def test_a_broker_elsewhere_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.host.operator_connection.CONNECT_DEADLINE_S", 0.5)
    text = "[broker]\nembedded = false\n[mesh]\nurl = 'nats://me:secret@127.0.0.1:9'\n"
    with pytest.raises(
        MeshUnreachable, match=r"no broker answers at nats://127\.0\.0\.1:9: connection refused\. "
    ):
        await Supervisor(settings_of(tmp_path, text), state=tmp_path / "state").start()


async def test_a_start_that_is_cancelled_ends_though_a_library_forgets_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(
        settings_of(tmp_path, f"{ONE_AGGREGATOR}[aggregator]\nreplicas = 0\n"), state=tmp_path / "state"
    )
    connect, connecting = supervisor._connect, asyncio.Event()

    async def forgetful() -> None:
        connecting.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(DEADLINE_S)
        await connect()

    monkeypatch.setattr(supervisor, "_connect", forgetful)
    starting = asyncio.create_task(supervisor.start())
    await connecting.wait()
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert supervisor.broker is not None and not supervisor.broker.alive


async def test_ctrl_c_in_the_moment_before_it_is_listened_for_stops_a_host_as_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python cancels the main task then."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = settings_of(tmp_path, f"{ONE_AGGREGATOR}[aggregator]\nreplicas = 0\n")
    others = set(psutil.Process().children(recursive=True))  # the broker that tests share may be among them
    host = asyncio.create_task(run_host(settings))
    assert await until(lambda: running_mesh(tmp_path / "choir") is not None, DEADLINE_S)
    started = set(psutil.Process().children(recursive=True)) - others
    assert any(_is_broker(child) for child in started)
    host.cancel()
    await host
    assert running_mesh(tmp_path / "choir") is None
    assert not any(_is_broker(child) for child in started)


def _is_broker(process: psutil.Process) -> bool:
    """Whether a process runs, and is a broker: some of a host's last for a moment only."""
    try:
        return process.is_running() and "nats-server" in process.name()
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("number", "aggregators"),
    [pytest.param(signal.SIGTERM, 0, marks=pytest.mark.soak), (signal.SIGINT, 0), (signal.SIGKILL, 1)],
)
async def test_no_process_outlives_the_supervisor(
    tmp_path: Path, number: signal.Signals, aggregators: int
) -> None:
    # Given a broker, and perhaps an aggregator, under a supervisor in a process of its own
    config = f"{ONE_AGGREGATOR}[aggregator]\nreplicas = {aggregators}\n"
    settings_of(tmp_path, config)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.host.supervisor"],
            cwd=REPOSITORY,
            env={**os.environ, "CHOIR_CONFIG": str(tmp_path / "choir.toml"), "XDG_STATE_HOME": str(tmp_path)},
            stdout=output,
            stderr=output,
        )
    try:
        assert await until(lambda: "ready at" in log.read_text(), DEADLINE_S), log.read_text()
        supervisor = psutil.Process(process.pid)
        running = partial(supervisor.children, recursive=True)  # some last for a moment only
        assert await until(lambda: len(running()) == 1 + FORKS + aggregators, DEADLINE_S), running()
        children = running()
        # When it is told to stop, or killed
        process.send_signal(number)
        assert await ended(process, DEADLINE_S)
        # Then its children are gone as well
        assert await until(lambda: not any(child.is_running() for child in children), DEADLINE_S)
        assert process.returncode == (-9 if number == signal.SIGKILL else 0)
        assert running_mesh(tmp_path / "choir") is None
    finally:
        process.kill()
        process.wait()
