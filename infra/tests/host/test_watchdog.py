"""Who hangs is told from who is not to blame, by what leases say at each look."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from infra.host.children.child import Child
from infra.host.children.watchdog import Watchdog
from services.chassis.registry.directory import Directory

PATIENCE_S = 4.0


class Host:
    """Two services and what is heard of them: `leases` has the process that each name's lease is of."""

    def __init__(self) -> None:
        self.leases: Mapping[str, int] = {"alice": 1, "bob": 2}
        self.connected = True
        self.killed: list[str] = []
        self.children = [self._child("alice", 1), self._child("bob", 2)]
        self.watchdog = Watchdog(
            cast(list[Child], self.children), cast(Directory, self), lambda: self.connected, PATIENCE_S
        )

    def _child(self, name: str, pid: int) -> Any:
        return SimpleNamespace(
            name=name,
            pid=pid,
            command=SimpleNamespace(service="agent"),
            forward=lambda *_: None,
            kill=lambda: self.killed.append(name),
        )

    @property
    def nodes(self) -> list[Any]:
        return [SimpleNamespace(service="agent", instance=name, pid=pid) for name, pid in self.leases.items()]

    def passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.watchdog.look(1.0)


def test_whoever_lives_and_is_not_heard_of_for_too_long_is_ended_once() -> None:
    host = Host()
    host.passes(1)
    host.leases = {"alice": 1}
    host.passes(4)
    assert host.killed == []
    host.passes(1)
    assert host.killed == ["bob"]
    host.children[1].pid = None
    host.passes(10)
    assert host.killed == ["bob"]


def test_nobody_is_blamed_while_the_broker_is_away_or_before_the_first_lease() -> None:
    host = Host()
    host.leases = {"alice": 1}
    host.passes(20)
    assert host.killed == [], "bob has only begun"
    host.leases = {"alice": 1, "bob": 2}
    host.passes(1)
    host.leases = {}
    host.passes(20)
    host.leases, host.connected = {"alice": 1}, False
    host.passes(20)
    assert host.killed == []


def test_a_name_that_another_process_has_is_no_sign_of_hanging() -> None:
    host = Host()
    host.passes(1)
    host.leases = {"alice": 1, "bob": 99}
    host.passes(20)
    assert host.killed == []
