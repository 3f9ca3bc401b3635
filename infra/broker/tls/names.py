"""The names and addresses at which this host is reached: those that its broker's certificate is for."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address

import psutil

from services.chassis.nats.connecting.address import EVERYWHERE

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MOST_NAME_CHARACTERS = 253


def reachable_addresses(host: str) -> tuple[str, ...]:
    """At which addresses others reach a broker that listens at `host`; those of all interfaces if it is all
    of them, without loopback and what is of one link alone."""
    if host not in EVERYWHERE:
        return (host,)
    families = (socket.AF_INET, *((socket.AF_INET6,) if host == "::" else ()))
    found = [
        address.address
        for interface in sorted(psutil.net_if_addrs().items())
        for address in interface[1]
        if address.family in families
    ]
    return tuple(dict.fromkeys(address for address in found if _is_for_others(address)))


def certificate_names(host: str, said: Iterable[str]) -> frozenset[str]:
    """What a certificate for a broker that listens at `host` names: also what the settings have `said`."""
    here = socket.gethostname()
    names = (*LOOPBACK, here, *reachable_addresses(host), *said)
    return frozenset(name for name in names if 0 < len(name) <= MOST_NAME_CHARACTERS and name.isascii())


def _is_for_others(address: str) -> bool:
    parsed = ip_address(address.partition("%")[0])
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)
