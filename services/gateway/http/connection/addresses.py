"""How many connections each address has open: one that opens hundreds and is silent keeps nobody else out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

NETWORK_BITS = 64
"""A host of IPv6 has all addresses of one network of this size, and is counted by that."""
TOLD = 2
"""Up to so many times the limit a client is told why it is refused; what is beyond that is closed."""

Verdict = Literal["taken", "told", "dropped"]


class Addresses:
    """At most `most` connections of an address. What comes from a `trusted` proxy (an address, a network, or
    `*`) is of many clients, and is not counted."""

    def __init__(self, most: int, trusted: Sequence[str] = ()) -> None:
        self._most = most
        self._trusts_all = "*" in trusted
        self._trusted = [network for one in trusted if (network := _network(one)) is not None]
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> tuple[Verdict, str]:
        """What is to become of a new connection, and under what it is counted until `leave`."""
        whose = self._counted_as(address)
        if not whose:
            return "taken", whose
        self._open[whose] += 1
        if self._open[whose] <= self._most:
            return "taken", whose
        return ("told" if self._open[whose] <= TOLD * self._most else "dropped"), whose

    def leave(self, whose: str) -> None:
        """A connection that was counted is gone."""
        if whose:
            self._open[whose] -= 1
            if not self._open[whose]:
                del self._open[whose]

    def _counted_as(self, address: str) -> str:
        """Empty for who is not counted."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return address
        if self._trusts_all or any(parsed in network for network in self._trusted):
            return ""
        if isinstance(parsed, IPv6Address):
            if parsed.ipv4_mapped is not None:
                return str(parsed.ipv4_mapped)
            return str(ip_network((parsed, NETWORK_BITS), strict=False))
        return address


def _network(said: str) -> IPv4Network | IPv6Network | None:
    """An address or a network; None for a name, which no connection has."""
    try:
        return ip_network(said, strict=False)
    except ValueError:
        return None
