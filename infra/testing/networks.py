"""Networks of hosts' own on this machine: namespaces of the kernel that meet at a bridge. It takes root's
rights.

Whoever tests stands at the bridge as well. All share files, processes and clocks.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.errors import ConfigurationError

NEEDED = "needs a user who may make network namespaces (iproute2)"
ALL_PERCENT = 100
LOSS_NEEDED = f"{NEEDED}, and nft (nftables)"


def allowed() -> bool:
    """Whether this user may make networks on this machine: one is made, and taken away."""
    name = f"ch{secrets.token_hex(4)}"
    try:
        run("ip", "netns", "add", name)
    except ConfigurationError:
        return False
    quietly("ip", "netns", "delete", name)
    return True


@dataclass(frozen=True)
class Network:
    """What one host has: its address, the name of its network, and its cable to the bridge."""

    address: str
    name: str
    switch: str
    link: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with that is to run there."""
        return ("ip", "netns", "exec", self.name)

    def received_bytes(self) -> int:
        """What has come in over the cable."""
        return int(run(*self.inside, "cat", "/sys/class/net/eth0/statistics/rx_bytes"))

    def set_link(self, up: bool) -> None:
        """Pulls the cable out, or puts it in again."""
        run("ip", "-n", self.switch, "link", "set", self.link, "up" if up else "down")

    def set_loss(self, to_percent: int, from_percent: int) -> None:
        """So many packets of a hundred are lost from now on, of those to the host and of those from it; 0 for
        none.

        `tc netem` would do the same; not every kernel has it.
        """
        ways = ((self.name, "eth0", to_percent), (self.switch, self.link, from_percent))
        for name, link, percent in ways:
            within = ("ip", "netns", "exec", name, "nft")
            table = f"loss_{self.link}"
            quietly(*within, "delete", "table", "netdev", table)
            if percent:
                hook = f'type filter hook ingress device "{link}" priority 0;'
                some = "" if percent == ALL_PERCENT else f"numgen random mod {ALL_PERCENT} < {percent} "
                run(*within, f"table netdev {table} {{ chain loss {{ {hook} {some}drop; }}; }}")


def can_lose() -> bool:
    """Whether packets can be lost here."""
    return shutil.which("nft") is not None


class Networks:
    """So many networks, which `build` makes and `remove` takes away. At `gate` they reach this machine."""

    def __init__(self, count: int) -> None:
        run_id, subnet = secrets.token_hex(2), secrets.randbelow(200) + 20
        self._switch = f"ch{run_id}"
        self.gate = f"10.213.{subnet}.254"
        self.all: Sequence[Network] = [
            Network(f"10.213.{subnet}.{number}", f"ch{run_id}n{number}", self._switch, f"ch{run_id}l{number}")
            for number in range(1, count + 1)
        ]

    def build(self) -> None:
        """ConfigurationError if that cannot be."""
        if os.geteuid() != 0:
            raise ConfigurationError("hosts in networks of their own take root's rights (ip netns)")
        self._build_switch()
        for network in self.all:
            self._connect(network)

    def remove(self) -> None:
        """Takes away what there is of them."""
        for network in self.all:
            quietly("ip", "netns", "delete", network.name)
        quietly("ip", "link", "delete", f"{self._switch}g")
        quietly("ip", "netns", "delete", self._switch)

    @contextmanager
    def built(self) -> Iterator[Sequence[Network]]:
        """They are there meanwhile."""
        try:
            self.build()
            yield self.all
        finally:
            self.remove()

    def _build_switch(self) -> None:
        """A bridge in a network of its own: rules of this machine for what it forwards are not for it."""
        within, gate = ("ip", "-n", self._switch), f"{self._switch}g"
        run("ip", "netns", "add", self._switch)
        run(*within, "link", "add", "bridge", "type", "bridge")
        run(*within, "link", "set", "bridge", "up")
        run("ip", "link", "add", gate, "type", "veth", "peer", "name", "gate", "netns", self._switch)
        run(*within, "link", "set", "gate", "master", "bridge", "up")
        run("ip", "address", "add", f"{self.gate}/24", "dev", gate)
        run("ip", "link", "set", gate, "up")

    def _connect(self, network: Network) -> None:
        within = ("ip", "-n", network.name)
        run("ip", "netns", "add", network.name)
        peer = ("peer", "name", "eth0", "netns", network.name)
        run("ip", "-n", self._switch, "link", "add", network.link, "type", "veth", *peer)
        run("ip", "-n", self._switch, "link", "set", network.link, "master", "bridge", "up")
        run(*within, "address", "add", f"{network.address}/24", "dev", "eth0")
        run(*within, "link", "set", "eth0", "up")
        run(*within, "link", "set", "lo", "up")


def run(*command: str) -> str:
    """What a command says; ConfigurationError with its words if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.strip() or done.returncode
        raise ConfigurationError(f"{' '.join(command)}: {said} (this takes root's rights)")
    return done.stdout


def quietly(*command: str) -> None:
    """Runs a command that may fail: what it removes may be gone."""
    subprocess.run(command, capture_output=True, check=False)
