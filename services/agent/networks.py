"""Networks in which external workers may be: the operator's choice, and what is never asked.

Whoever registers a worker makes agents send requests to an address, and sees what comes of it. So the
address itself is looked at, after the name was resolved, and the connection goes to that very address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from services.agent.settings import WorkersSection

Address = IPv4Address | IPv6Address

METADATA = frozenset(map(ip_address, ("168.63.129.16", "100.100.100.200", "fd00:ec2::254")))
"""Where clouds tell a machine its secrets, beside the link-local address that most of them have for it."""
NAT64 = IPv6Network("64:ff9b::/96")
LAST_32_BITS = 2**32 - 1


@dataclass(frozen=True)
class Networks:
    """What is allowed: all unicast addresses if `allowed` is empty. Hosts of keys are allowed by name."""

    allowed: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()

    def refusal(self, host: str, address: str) -> str | None:
        """Why no connection is made to an `address` of `host`, or None."""
        found = plain_address(address)
        if is_never_asked(found):
            return f"{found} is an address that is never asked (link-local, multicast, metadata of a cloud)"
        inside = any(found in ip_network(network) for network in self.allowed)
        if not self.allowed or inside or host.lower() in self.hosts:
            return None
        return f"{found} is in none of the networks that workers may be in (networks in [workers])"


def networks_of(settings: WorkersSection) -> Networks:
    """What the settings allow."""
    urls = [url for key in settings.keys.values() for url in key.hosts]
    return Networks(settings.networks, frozenset(urlsplit(url).hostname or "" for url in urls))


def plain_address(text: str) -> Address:
    """An address without its zone, and the IPv4 address that an IPv6 one stands for."""
    address = ip_address(text.partition("%")[0])
    return address if isinstance(address, IPv4Address) else (_inner(address) or address)


def _inner(address: IPv6Address) -> IPv4Address | None:
    if address in NAT64:
        return IPv4Address(int(address) & LAST_32_BITS)
    return address.ipv4_mapped or address.sixtofour


def is_never_asked(address: Address) -> bool:
    """Whether nobody has a worker there."""
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and not address.is_loopback)
        or address in METADATA
    )


def permitted(networks: Networks, host: str, addresses: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """The addresses that may be asked, and why the first of the others may not."""
    refusals = {address: networks.refusal(host, address) for address in addresses}
    return (
        tuple(address for address, refusal in refusals.items() if refusal is None),
        next((refusal for refusal in refusals.values() if refusal is not None), None),
    )
