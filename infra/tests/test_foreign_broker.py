"""A nats-server that somebody else runs, with what `choir broker config` prints in its configuration."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import nats.errors
import pytest

from infra.broker.broker import FREE_PORTS, server_binary
from infra.broker.local_cluster import LocalCluster
from infra.host.credentials import Credentials
from infra.host.foreign_broker import configuration
from infra.host.processes import PREEXEC, terminate, until
from infra.host.supervisor import Supervisor
from infra.settings import HostSettings, load_host_settings
from schemas import subjects

CONFIG = """
[broker]
embedded = false
[mesh]
url = "{url}"
nkey = "{nkey}"
[summarizer]
replicas = 0
[metrics]
enabled = false
[gateway]
enabled = false
[[agents]]
name = "singer"
backend = "instant"
models = [{{ name = "alpha", reply = "the giraffe" }}]
"""
SERVER = """
server_name: {name}
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{folder}/store", sync_interval: always, max_file_store: 8GB, max_memory_store: 1GB }}
include choir.conf
"""
CLUSTER = """
cluster {{ name: theirs, listen: "127.0.0.1:{route}", routes: [{routes}] }}
"""


@contextlib.asynccontextmanager
async def servers(folder: Path, choir: str, ports: list[int]) -> AsyncIterator[None]:
    """So many nats-servers as there are ports, one cluster if there are several."""
    started = []
    try:
        for port in ports:
            own = folder / f"server-{port}"
            own.mkdir()
            (own / "choir.conf").write_text(choir)
            text = SERVER.format(name=f"theirs-{port}", port=port, folder=own)
            if len(ports) > 1:
                routes = ", ".join(f'"nats-route://127.0.0.1:{each + 2000}"' for each in ports)
                text += CLUSTER.format(route=port + 2000, routes=routes)
            (own / "nats.conf").write_text(text)
            command = [str(server_binary()), "--config", str(own / "nats.conf")]
            with (own / "log").open("wb") as log:
                started.append(subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=PREEXEC))
        for port in ports:
            log_path = folder / f"server-{port}" / "log"
            assert await until(lambda path=log_path: b"Server is ready" in path.read_bytes(), 20), (  # type: ignore[misc]
                log_path.read_text()
            )
        yield
    finally:
        for process in started:
            await terminate(process, 5)


def settings_for(folder: Path, url: str, state: Path) -> HostSettings:
    path = folder / "choir.toml"
    path.write_text(CONFIG.format(url=url, nkey=Credentials(state).operator))
    return load_host_settings(path)


@pytest.fixture
def ports(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[int]]:
    free = [broker.port for broker in LocalCluster(tmp_path / "unused").brokers]
    assert all(port in FREE_PORTS for port in free)
    yield free[: request.param]


@pytest.mark.parametrize(
    "ports",
    [pytest.param(1, id="one server"), pytest.param(3, id="a cluster of three", marks=pytest.mark.soak)],
    indirect=True,
)
async def test_choir_runs_on_it_as_on_its_own(tmp_path: Path, ports: list[int]) -> None:
    state = tmp_path / "state"
    url = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
    # Given servers that include what is printed for this host
    settings = settings_for(tmp_path, url, state)
    async with servers(tmp_path, configuration(settings, state), ports):
        supervisor = Supervisor(settings, state=state, forward=lambda *_: None)
        await supervisor.start()
        try:
            # Then whoever comes on loopback asks, and is answered
            client = await nats.connect(url.split(",")[-1])
            reply = await client.request(subjects.ASK, json.dumps({"prompt": "hi"}).encode(), timeout=30)
            assert json.loads(reply.data)["text"] == "the giraffe"
            # and may do nothing else, as on our own
            with pytest.raises(nats.errors.Error):
                await client.jetstream(timeout=1).account_info()
            await client.close()
            # A service comes by its own key, and may do no more there than its own work
            key = Credentials(state).of_instance("agent", "singer")
            agent = await nats.connect(
                url.split(",")[0], nkeys_seed=str(key), inbox_prefix="_INBOX_agent.singer"
            )
            with pytest.raises(nats.errors.Error):
                await agent.jetstream(timeout=1).delete_stream(subjects.RESULTS_STREAM)
            await agent.close()
        finally:
            await supervisor.stop()
