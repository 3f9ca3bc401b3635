"""A pytest plugin: a real broker, a provisioned mesh, and service processes to kill and pause.

mesh_url          the URL of the session's broker, with every stream and bucket new for this test
mesh_models       override it in a test module: the models whose queues exist
connection        a nats-py client of that mesh, closed after the test
own_broker        a broker of the test's own, provisioned, to kill, pause and restart
spawn_service     starts `python -m services.<name>`; what still runs at the end is ended
compared_digests  what was compared by the function that takes the same time for all, which is left as it is
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError

from infra.broker.broker import Broker
from infra.broker.provision import provision_at
from infra.host.children.fork_server import FORKS
from infra.host.children.processes import PREEXEC, ended, last_lines, pause, terminate, until
from infra.testing.broker.renewal import make_new
from infra.testing.forked_services import forking
from infra.testing.nursery import Forked, Nursery
from schemas import subjects
from schemas.nodes.lease import NodeLease, NodeState

DISK_MIB = 192
READY_DEADLINE_S = 180.0
STOP_DEADLINE_S = 180.0
JETSTREAM_TIMEOUT_S = 60.0
FLUSH_TIMEOUT_S = 60

INSIDE = (
    subjects.gather("interactive", "stolen"),
    subjects.answer("stolen", 1, "alpha"),
    subjects.result("stolen"),
    subjects.event("router", "stolen"),
    subjects.bucket_key(subjects.SCORES_BUCKET, "stolen"),
    f"$JS.API.STREAM.PURGE.{subjects.RESULTS_STREAM}",
)
"""Where services alone publish: a command, what is stored of work, an event, a key of a bucket; and what
empties a stream."""

REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_configure() -> None:
    """A test run in the background of a shell starts with SIGINT ignored, and so would all that it starts.

    A gateway has one port on a host, and test processes run side by side: a mesh that is started in one of
    them has none, but where a test says so. Nor has it a model store, which would cost each a second."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["CHOIR_GATEWAY__ENABLED"] = "false"
    os.environ["CHOIR_MODELSTORE__ENABLED"] = "false"


class ServiceProcess:
    """A service in a process of its own, with its output in a file."""

    def __init__(
        self, service: str, instance: str, process: subprocess.Popen[bytes] | Forked, log: Path
    ) -> None:
        self.service = service
        self.instance = instance
        self.process = process
        self.log_path = log

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there (it may be paused)."""
        return self.process.poll() is None

    def log(self) -> str:
        """All that the service has written."""
        return self.log_path.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, as a crash would, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: the process is there and does nothing."""
        if isinstance(self.process, Forked):
            self.process.pause()
        else:
            pause(self.process)

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        self.process.send_signal(signal.SIGCONT)

    async def stop(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """SIGTERM, then SIGKILL after the deadline; the exit code."""
        await terminate(self.process, deadline_s)
        return self.process.wait()

    async def exited(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Wait for the process to end by itself; its exit code."""
        if not await ended(self.process, deadline_s):
            pytest.fail(f"{self.instance} still runs after {deadline_s} s; its log ends:\n{self._tail()}")
        return self.process.wait()

    async def logged(self, text: str, deadline_s: float = STOP_DEADLINE_S) -> None:
        """Wait until the service has written `text`."""
        if not await until(lambda: text in self.log(), deadline_s):
            pytest.fail(f"{self.instance} did not log {text!r}; its log ends:\n{self._tail()}")

    async def wait_ready(self, nc: Client, deadline_s: float = READY_DEADLINE_S) -> NodeLease:
        """Wait until this very process says "ready" in its lease."""
        return await self.wait_state(nc, "ready", deadline_s)

    async def wait_state(
        self, nc: Client, state: NodeState, deadline_s: float = READY_DEADLINE_S
    ) -> NodeLease:
        """Wait until this very process says `state` in its lease; the test fails if it does not in time."""
        leases = await nc.jetstream().key_value(subjects.NODES_BUCKET)
        key = subjects.node_key(self.service, self.instance)
        try:
            async with asyncio.timeout(deadline_s):
                while self.alive:
                    try:
                        entry = await leases.get(key)
                    except KeyNotFoundError:
                        entry = None
                    if entry is not None and entry.value:
                        lease = NodeLease.read(entry.value)
                        if lease.state == state and lease.pid == self.pid:
                            return lease
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"{self.instance} is not {state} after {deadline_s} s; its log ends:\n{self._tail()}")
        pytest.fail(f"{self.instance} ended with {self.process.returncode}; its log ends:\n{self._tail()}")

    def _tail(self) -> str:
        return last_lines(self.log_path, count=40)


class SpawnService(Protocol):
    """Starts a service process: see the fixture `spawn_service`."""

    def __call__(
        self,
        service: str,
        instance: str | None = None,
        *,
        url: str | None = None,
        agent: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        command: Iterable[str] | None = None,
    ) -> ServiceProcess: ...


class PatientClient(Client):
    """A client whose questions to JetStream wait for as long as a busy machine may take, and whose `flush`
    returns when the broker has read everything that was sent before."""

    def jetstream(self, **options: Any) -> JetStreamContext:
        """The streams, with a patience of its own unless another one is given."""
        return super().jetstream(**{"timeout": JETSTREAM_TIMEOUT_S, **options})

    async def flush(self, timeout: int = FLUSH_TIMEOUT_S) -> None:
        """The ping of nats-py's `flush` may overtake what is still in its buffer; a second cannot."""
        for _ in range(2):
            await super().flush(timeout)


async def all_read(client: Client) -> None:
    """Returns when the broker has read everything that any client of nats-py has sent."""
    for _ in range(2):
        await client.flush(FLUSH_TIMEOUT_S)


async def connect(url: str) -> Client:
    """A client that never gives up reconnecting, as those of the services."""
    client = PatientClient()
    again: Any = 0.1  # seconds, which nats-py says are whole ones
    await client.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=again, connect_timeout=60)
    return client


async def renew(url: str, models: Iterable[str]) -> None:
    """Make every stream, consumer and bucket as if it had just been created."""
    nc = await connect(url)
    try:
        await make_new(nc, models)
    finally:
        await nc.close()


def fill_disk(disk: Path) -> Path:
    """A file that takes all that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            return filler
    raise AssertionError("the disk does not get full")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of few megabytes. Skips where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux":
        pytest.skip("needs Linux: tmpfs, for a disk of few megabytes")
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip("needs a user who may mount a small disk (tmpfs)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def compared_digests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The pairs that `hmac.compare_digest` has compared since the test began."""
    compared: list[tuple[str, str]] = []
    compare = hmac.compare_digest

    def listened(one: str, other: str) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", listened)
    return compared


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """A test that has configured the loggers of this process leaves that to no other."""
    yield
    structlog.reset_defaults()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """One real broker for the whole test session, on a free port."""
    async with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    """The models whose queues exist; a test module overrides it with a fixture of the same name."""
    return ("alpha", "beta", "gamma", "delta")


@pytest_asyncio.fixture
async def mesh_url(broker: Broker, mesh_models: tuple[str, ...]) -> str:
    """The session's broker, with streams and buckets that hold nothing from an earlier test."""
    await renew(broker.url, mesh_models)
    return broker.url


@pytest_asyncio.fixture
async def connection(mesh_url: str) -> AsyncIterator[Client]:
    """A client of the mesh."""
    nc = await connect(mesh_url)
    yield nc
    await nc.close()


@pytest_asyncio.fixture
async def own_broker(tmp_path: Path, mesh_models: tuple[str, ...]) -> AsyncIterator[Broker]:
    """A provisioned broker that this test may kill, pause and restart."""
    async with Broker(tmp_path / "broker", prepare=lambda url: provision_at(url, mesh_models)) as running:
        yield running


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks services for `spawn_service`."""
    running = Nursery.in_folder(REPOSITORY)
    yield running
    running.close()


@pytest.fixture(scope="session", autouse=True)
def _supervisors_fork(request: pytest.FixtureRequest) -> Iterator[None]:
    """The services of a supervisor in a test's own process are forked as well."""
    with forking(lambda: request.getfixturevalue("nursery").another()) if FORKS else nullcontext():
        yield


@pytest.fixture
def spawn_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SpawnService]:
    """Starts services on `mesh_url` (or on `url`), and ends those that still run after the test.

    `agent` is the AgentSection of an agent, and `command` runs something else than
    `python -m services.<service>`. Settings of the surrounding environment do not reach the service. It is
    forked from a process that has imported it; with a variable of the interpreter's in `env` it is not.
    """
    started: list[ServiceProcess] = []

    def spawn(
        service: str,
        instance: str | None = None,
        *,
        url: str | None = None,
        agent: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        command: Iterable[str] | None = None,
    ) -> ServiceProcess:
        instance = instance or f"{service}-{len(started)}"
        log = tmp_path / f"{instance.replace('/', '_')}-{len(started)}.log"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CHOIR_")},
            "PYTHONUNBUFFERED": "1",
            "CHOIR_MESH__URL": url or request.getfixturevalue("mesh_url"),
            "CHOIR_INSTANCE": instance,
            **({"CHOIR_AGENT": json.dumps(agent)} if agent is not None else {}),
            **(env or {}),
        }
        process: subprocess.Popen[bytes] | Forked
        with log.open("wb") as output:
            if command is None and FORKS and all(name.startswith("CHOIR_") for name in env or ()):
                nursery: Nursery = request.getfixturevalue("nursery")
                process = nursery.start(f"services.{service}", environment, output.fileno())
            else:
                process = subprocess.Popen(
                    [*command] if command is not None else [sys.executable, "-m", f"services.{service}"],
                    cwd=REPOSITORY,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=PREEXEC,
                    start_new_session=True,
                )
        started.append(ServiceProcess(service, instance, process, log))
        return started[-1]

    yield spawn
    _end_all(started)


def _end_all(started: list[ServiceProcess]) -> None:
    """Ask all at once, then insist."""
    running = [service.process for service in started if service.alive]
    for process in running:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    for process in running:
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
