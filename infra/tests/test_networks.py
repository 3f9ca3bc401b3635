"""Networks of hosts' own: what is sent over a bad cable is lost in part, and whole again afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from infra.testing.networks import LOSS_NEEDED, Network, Networks, allowed, can_lose, run

SENT, AT_ONCE = 1_000, 20
LOSSES_PERCENT = ((30, 30), (50, 0), (0, 50), (100, 0), (0, 100))
PATIENCE_S, SILENCE_S = 180.0, 1.0
ROOM = 33
"""SO_RCVBUFFORCE: what comes while a process is not at work waits for it, however much it is."""
ECHO = f"""
import socket
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.setsockopt(socket.SOL_SOCKET, {ROOM}, 1 << 24)
heard.bind(("", 4000))
print("ready", flush=True)
while True:
    said, who = heard.recvfrom(64)
    heard.sendto(said, who)
"""
ASK = f"""
import socket, sys
address, patience_s = (sys.argv[1], 4000), float(sys.argv[2])
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.setsockopt(socket.SOL_SOCKET, {ROOM}, 1 << 24)
came = 0

def hear(until, patience_s):
    global came
    asking.settimeout(patience_s)
    try:
        while came < until:
            asking.recv(64)
            came += 1
    except TimeoutError:
        pass

for first in range(0, {SENT}, {AT_ONCE}):
    before = came
    for number in range({AT_ONCE}):
        asking.sendto(b"?", address)
    hear(before + {AT_ONCE}, 0.02)
hear({SENT}, patience_s)
print(came)
"""


def came_back(here: Network, there: Network, patience_s: float = PATIENCE_S) -> int:
    """Of SENT datagrams, how many were answered, none later than `patience_s` after another."""
    command = (*here.inside, sys.executable, "-c", ASK, there.address, str(patience_s))
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def introduce(one: Network, other: Network) -> None:
    """Has one know the other's hardware address for good: who has to ask for it over a bad cable keeps, and
    may drop, all that is sent meanwhile."""
    address = run(*other.inside, "cat", "/sys/class/net/eth0/address").strip()
    known = ("lladdr", address, "dev", "eth0", "nud", "permanent")
    run("ip", "-n", one.name, "neigh", "replace", other.address, *known)


def test_packets_of_a_bad_cable_are_lost_in_the_directions_that_were_said() -> None:
    if not allowed() or not can_lose():
        pytest.skip(LOSS_NEEDED)
    with Networks(2).built() as (here, there):
        introduce(here, there)
        introduce(there, here)
        echo = subprocess.Popen(
            [*there.inside, sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True
        )
        try:
            assert echo.stdout is not None and echo.stdout.readline() == "ready\n"
            assert came_back(here, there) == SENT
            for to_percent, from_percent in LOSSES_PERCENT:
                there.set_loss(to_percent, from_percent)
                kept = (1 - to_percent / 100) * (1 - from_percent / 100)
                assert came_back(here, there, SILENCE_S) / SENT == pytest.approx(kept, abs=0.07)
            there.set_loss(0, 0)
            assert came_back(here, there) == SENT
        finally:
            echo.kill()
            echo.wait()
            assert echo.stdout is not None
            echo.stdout.close()
