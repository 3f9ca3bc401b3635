"""Addresses: shown without passwords, reachable from elsewhere or not, and why nobody answers."""

from __future__ import annotations

import socket

import pytest

from services.chassis.nats.connecting.address import is_loopback, why, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://agent:secret@mesh.example:4222", "nats://mesh.example:4222"),
        ("nats://agent:se@cret@mesh.example:4222", "nats://mesh.example:4222"),
        ("nats://token@[::1]:4222", "nats://[::1]:4222"),
        ("nats://mesh.example:4222", "nats://mesh.example:4222"),
        ("nats://agent:secret@[broken", "(an address that cannot be read)"),
    ],
)
def test_a_password_in_an_address_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_only_addresses_of_this_host_are_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.0.1.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "mesh.example", "")))


def test_the_reason_has_words_of_its_own() -> None:
    assert why(ConnectionRefusedError(111, "x")) == "connection refused"
    assert why(socket.gaierror(-2, "Name or service not known")) == "there is no host of this name"
    assert why(TimeoutError()) == "it took too long"
    assert why(ValueError()) == "ValueError"
