"""Three hosts on this one: each in a network of its own, with `choir up`, a broker of one cluster, and small
disks.

Their networks are namespaces of the kernel that meet at a bridge; whoever tests stands at the bridge as
well. It takes root's rights. All share processes and clocks, so a host can be killed, and told another time,
from outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.host.children.processes import PREEXEC, last_lines
from infra.members.brokers import cluster_secrets, take_secrets
from infra.settings import load_host_settings
from infra.testing.networks import Network, Networks, quietly, run
from loadtest.faults import NoMesh, WrongOption
from loadtest.trial import upgrading
from services.client.finding.local_mesh import running_mesh

PORT = 4222
UP_DEADLINE_S = 180.0
STOP_DEADLINE_S = 45.0
DISK_MIB = 256
USER = "choir"
MODELS = ("alpha", "beta")

CONFIG = """
[broker]
host = "{address}"
cluster = {cluster}
store_dir = "{folder}/broker-disk/store"
min_free_bytes = 0
[router]
[aggregator]
[summarizer]
replicas = 0
[metrics]
enabled = {metrics}
min_free_bytes = 0
folder = "{folder}/metrics-disk/events"
[gateway]
enabled = false
[events]
sample_interval_s = 5
[[agents]]
name = "{name}-one"
backend = "instant"
models = [{{ name = "alpha", reply = "alpha says so", slots = 8 }}]
[[agents]]
name = "{name}-two"
backend = "instant"
models = [{{ name = "beta", reply = "beta says so", delay_ms = 30, slots = 8 }}]
"""
CLOCK = """
import time
_real = time.time
time.time = lambda: _real() + {ahead_s}
"""


@dataclass
class Host:
    """One host: its name, address, network and folder, and the process of its `choir up`."""

    name: str
    network: Network
    folder: Path
    clock_ahead_s: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    gone: bool = False

    @property
    def address(self) -> str:
        """Where it is in the network of all."""
        return self.network.address

    @property
    def url(self) -> str:
        """Its broker's address."""
        return f"tls://{self.address}:{PORT}"

    @property
    def config(self) -> Path:
        """Its choir.toml."""
        return self.folder / "choir.toml"

    @property
    def state(self) -> Path:
        """Its state folder."""
        return self.folder / "state" / "choir"

    @property
    def log(self) -> Path:
        """All that its `choir up` and its services have said."""
        return self.folder / "up.log"

    @property
    def version(self) -> Path:
        """Where the schemas are that services have which begin now; those of this repository if it is not
        there."""
        return self.folder / "version"

    @property
    def broker_disk(self) -> Path:
        """A small disk that only its broker writes to."""
        return self.folder / "broker-disk"

    @property
    def metrics_disk(self) -> Path:
        """A small disk that only its metrics writes to."""
        return self.folder / "metrics-disk"

    def start(self, environment: dict[str, str]) -> None:
        """Starts `choir up`, and does not wait."""
        own = {"XDG_STATE_HOME": str(self.folder / "state")}
        if self.clock_ahead_s:
            clock = self.folder / "clock"
            clock.mkdir(exist_ok=True)
            (clock / "sitecustomize.py").write_text(CLOCK.format(ahead_s=self.clock_ahead_s))
            own["PYTHONPATH"] = os.pathsep.join(filter(None, (str(clock), environment.get("PYTHONPATH"))))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*self.network.inside, sys.executable, "-m", upgrading.MODULE, str(self.version)),
                    *("up", "--verbose", "--config", str(self.config)),
                ],
                env=environment | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=PREEXEC,
                start_new_session=True,
            )

    def wait(self, deadline_s: float) -> None:
        """Until it has said that it is ready; NoMesh with its last words if it does not."""
        assert self.process is not None
        end_s = time.monotonic() + deadline_s
        while running_mesh(self.state) is None:
            if self.process.poll() is not None or time.monotonic() > end_s:
                raise NoMesh(f"{self.name} did not come up; it last said: {last_lines(self.log)}")
            time.sleep(0.1)

    def broker_pid(self) -> int | None:
        """The process of its broker; None while there is none."""
        if self.process is None or self.process.poll() is not None:
            return None
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.Error):  # some last for a moment only
                if "nats-server" in child.name():
                    return child.pid
        return None

    def end(self) -> None:
        """Takes it away for good, at once, with all its processes."""
        self.gone = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def set_link(self, up: bool) -> None:
        """Pulls its cable out, or puts it in again."""
        self.network.set_link(up)

    def set_loss(self, to_percent: int, from_percent: int) -> None:
        """So many packets of a hundred are lost on its cable, of those to it and of those from it."""
        self.network.set_loss(to_percent, from_percent)


class Hosts:
    """So many hosts, started by `with`; `environment` is what a client of them has to have."""

    def __init__(self, folder: Path, count: int = 3, skewed: float = 0.0) -> None:
        """The last host's clock is `skewed` seconds ahead. `folder` is theirs, and stays."""
        if os.geteuid() != 0:
            raise WrongOption("hosts in networks of their own take root's rights (ip netns)")
        self._networks = Networks(count)
        self.folder = folder
        self._password = secrets.token_hex(8)
        self.hosts = [
            Host(f"host{number}", network, folder / f"host{number}", skewed if number == count else 0.0)
            for number, network in enumerate(self._networks.all, 1)
        ]

    @property
    def url(self) -> str:
        """The addresses of all brokers."""
        return ",".join(host.url for host in self.hosts)

    @property
    def living(self) -> Sequence[Host]:
        """Those that have not been taken away for good."""
        return [host for host in self.hosts if not host.gone]

    @property
    def environment(self) -> dict[str, str]:
        """How clients are let in."""
        return {
            "CHOIR_MESH__USER": USER,
            "CHOIR_MESH__PASSWORD": self._password,
            "CHOIR_MESH__CA": str(self.hosts[0].state / "tls" / "ca.pem"),
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[Hosts]:
        """Builds the networks and disks, starts all hosts at once, and takes everything away in the end."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CHOIR_")}
        outside = {name: os.environ.get(name) for name in self.environment}
        try:
            self._build()
            inside = {name: value for name, value in self.environment.items() if name != "CHOIR_MESH__CA"}
            for host in self.hosts:
                host.start(clean | inside)
            for host in self.hosts:
                host.wait(UP_DEADLINE_S)
            os.environ |= self.environment
            yield self
        finally:
            for name, value in outside.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            self._stop()
            self._take_away()

    def _build(self) -> None:
        self._networks.build()
        cluster = json.dumps([f"{host.address}:{PORT}" for host in self.hosts])
        for host in self.hosts:
            for disk in (host.broker_disk, host.metrics_disk):
                disk.mkdir(parents=True)
                run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk))
            first = "true" if host is self.hosts[0] else "false"
            host.config.write_text(
                CONFIG.format(
                    address=host.address,
                    cluster=cluster,
                    folder=host.folder,
                    name=host.name,
                    metrics=first,
                )
            )
        first_host, *others = self.hosts
        settings = load_host_settings(first_host.config)
        shared = cluster_secrets(settings.broker, settings.mesh, first_host.state)
        for host in others:
            take_secrets(shared, host.state)

    def _stop(self) -> None:
        started = [host.process for host in self.hosts if host.process is not None]
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        end_s = time.monotonic() + STOP_DEADLINE_S
        for process in started:
            try:
                process.wait(max(0.1, end_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _take_away(self) -> None:
        self._networks.remove()
        for host in self.hosts:
            for disk in (host.broker_disk, host.metrics_disk):
                quietly("umount", "--lazy", str(disk))
