"""Addresses of a broker: as they may be shown, who can reach them, and why nobody answers there."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on at all interfaces, and how this host reaches them."""


def reached_from_here(host: str) -> str:
    """How a URL names, on this host, a server that listens at `host`."""
    host = EVERYWHERE.get(host, host)
    return f"[{host}]" if ":" in host else host


def without_password(url: str) -> str:
    """The same URL, or URLs with commas between them, without user and password; what cannot be read as a URL
    is not shown at all."""
    if "," in url:
        return ",".join(without_password(one.strip()) for one in url.split(","))
    try:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return "(an address that cannot be read)" if "@" in url else url


def host_and_port(address: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[::1]:port` or an IPv6 address alone, taken apart. ValueError says what is
    wrong."""
    if address.count(":") > 1 and not address.startswith("["):
        return str(ip_address(address)), None
    parts = urlsplit(f"//{address}")
    if not parts.hostname or parts.username or parts.path or parts.query:
        raise ValueError("this is no address")
    return parts.hostname, parts.port


def is_loopback(host: str) -> bool:
    """Whether only this host can reach an address to listen on."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def why(error: Exception) -> str:
    """Why a connection was not made; some errors have no words of their own."""
    if isinstance(error, socket.gaierror):
        return "there is no host of this name"
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
