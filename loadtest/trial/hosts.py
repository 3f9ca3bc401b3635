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
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.broker.tls.authority import Authority
from infra.host.processes import PREEXEC, last_lines
from loadtest.faults import NoMesh, WrongOption
from services.client.local_mesh import running_mesh

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


def run(*command: str) -> None:
    """Runs a command; WrongOption with its words if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongOption(
            f"{' '.join(command)}: {done.stderr.strip() or done.returncode} (this takes root's rights)"
        )


def quietly(*command: str) -> None:
    """Runs a command that may fail: what it removes may be gone."""
    subprocess.run(command, capture_output=True, check=False)


@dataclass
class Host:
    """One host: its name, address, network and folder, and the process of its `choir up`."""

    name: str
    address: str
    network: str
    switch: str
    link: str
    folder: Path
    clock_ahead_s: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    gone: bool = False

    @property
    def url(self) -> str:
        """Its broker's address."""
        return f"tls://{self.address}:{PORT}"

    @property
    def log(self) -> Path:
        """All that its `choir up` and its services have said."""
        return self.folder / "up.log"

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
                    *("ip", "netns", "exec", self.network, sys.executable, "-m", "services.cli"),
                    *("up", "--verbose", "--config", str(self.folder / "choir.toml")),
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
        while running_mesh(self.folder / "state" / "choir") is None:
            if self.process.poll() is not None or time.monotonic() > end_s:
                raise NoMesh(f"{self.name} did not come up; it last said: {last_lines(self.log)}")
            time.sleep(0.1)

    def broker_pid(self) -> int | None:
        """The process of its broker; None while there is none."""
        if self.process is None or self.process.poll() is not None:
            return None
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
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
        run("ip", "-n", self.switch, "link", "set", self.link, "up" if up else "down")


class Hosts:
    """So many hosts, started by `with`; `environment` is what a client of them has to have."""

    def __init__(self, folder: Path, count: int = 3, skewed: float = 0.0) -> None:
        """The last host's clock is `skewed` seconds ahead. `folder` is theirs, and stays."""
        if os.geteuid() != 0:
            raise WrongOption("hosts in networks of their own take root's rights (ip netns)")
        run_id = secrets.token_hex(2)
        subnet = secrets.randbelow(200) + 20
        self._switch = f"ch{run_id}"
        self._gate = f"10.213.{subnet}.254"
        self._folder = folder
        self._password = secrets.token_hex(8)
        self.hosts = [
            Host(
                f"host{number}",
                f"10.213.{subnet}.{number}",
                f"ch{run_id}n{number}",
                self._switch,
                f"ch{run_id}l{number}",
                folder / f"host{number}",
                skewed if number == count else 0.0,
            )
            for number in range(1, count + 1)
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
            "CHOIR_MESH__CA": str(self._folder / "authority" / "ca.pem"),
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
        authority = Authority(self._folder / "authority")
        authority.renew(["127.0.0.1"])
        self._build_switch()
        cluster = json.dumps([f"{host.address}:{PORT}" for host in self.hosts])
        for host in self.hosts:
            for disk in (host.broker_disk, host.metrics_disk):
                disk.mkdir(parents=True)
                run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk))
            tls = host.folder / "state" / "choir" / "tls"
            tls.mkdir(parents=True)
            for name in ("ca.key", "ca.pem"):
                shutil.copy(self._folder / "authority" / name, tls / name)
            first = "true" if host is self.hosts[0] else "false"
            (host.folder / "choir.toml").write_text(
                CONFIG.format(
                    address=host.address,
                    cluster=cluster,
                    folder=host.folder,
                    name=host.name,
                    metrics=first,
                )
            )
            self._connect(host)

    def _build_switch(self) -> None:
        """A bridge in a network of its own: rules of this machine for what it forwards are not for it."""
        within, gate = ("ip", "-n", self._switch), f"{self._switch}g"
        run("ip", "netns", "add", self._switch)
        run(*within, "link", "add", "bridge", "type", "bridge")
        run(*within, "link", "set", "bridge", "up")
        run("ip", "link", "add", gate, "type", "veth", "peer", "name", "gate", "netns", self._switch)
        run(*within, "link", "set", "gate", "master", "bridge", "up")
        run("ip", "address", "add", f"{self._gate}/24", "dev", gate)
        run("ip", "link", "set", gate, "up")

    def _connect(self, host: Host) -> None:
        within = ("ip", "-n", host.network)
        run("ip", "netns", "add", host.network)
        peer = ("peer", "name", "eth0", "netns", host.network)
        run("ip", "-n", self._switch, "link", "add", host.link, "type", "veth", *peer)
        run("ip", "-n", self._switch, "link", "set", host.link, "master", "bridge", "up")
        run(*within, "address", "add", f"{host.address}/24", "dev", "eth0")
        run(*within, "link", "set", "eth0", "up")
        run(*within, "link", "set", "lo", "up")

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
        for host in self.hosts:
            quietly("ip", "netns", "delete", host.network)
            for disk in (host.broker_disk, host.metrics_disk):
                quietly("umount", "--lazy", str(disk))
        quietly("ip", "link", "delete", f"{self._switch}g")
        quietly("ip", "netns", "delete", self._switch)
