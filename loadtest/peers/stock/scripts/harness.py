"""What the scripts of all clients share: where the mesh is, and how a scenario's outcome is told.

A script runs in the client's own environment, so this needs nothing but Python. Each scenario is a function
that takes the `Mesh`; what it returns is told beside its outcome. One JSON line comes of each.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SCENARIOS = (
    "plain",
    "stream",
    "tools",
    "schema",
    "embeddings",
    "unknown",
    "hang-up",
    "restart",
    "oversize",
    "limited",
)
QUESTION = "What is the capital of France?"
ASKED = [{"role": "user", "content": QUESTION}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Lima", "Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WORDS = " ".join(f"word{number}" for number in range(120))
"""What `SLOW` says, over twenty seconds."""
TOO_LONG = "and so on " * 20_000
"""More than any model here takes."""
MOST_UNTIL_LIMITED = 6
LIMITED = "within a minute"
CANCEL_DEADLINE_S = 180.0
BACK_DEADLINE_S = 180.0


class NotOffered(Exception):
    """Raised by a scenario for which the client has nothing; says why."""


class Mesh:
    """Where the gateway is, and the models to ask: one that generates, one that calls a tool, one that is
    slow, and an ensemble."""

    address = os.environ.get("CHOIR_ADDRESS", "http://127.0.0.1:11435")
    control = os.environ.get("CHOIR_CONTROL", "")
    reference = os.environ.get("CHOIR_REFERENCE", "")
    model = os.environ.get("CHOIR_MODEL", "choir-qwen")
    ensemble = os.environ.get("CHOIR_ENSEMBLE", "choir/majority")
    caller = os.environ.get("CHOIR_CALLER", "caller")
    slow = os.environ.get("CHOIR_SLOW", "slow")
    hub_model = os.environ.get("CHOIR_HUB_MODEL", "")
    """A model of the hub that the mesh fetches from."""
    limited_key = os.environ.get("CHOIR_LIMITED_KEY", "")
    """A key that may use one token a minute."""

    def figure(self, name: str) -> float:
        """A figure of `/metrics`."""
        for line in get(f"{self.address}/metrics").splitlines():
            if line.split(" ")[0] == name:
                return float(line.split(" ")[1])
        raise LookupError(name)

    def rests(self) -> None:
        """Waits until nothing is in work: leases tell of what has ended a moment later."""
        self._until("a client", lambda: self.figure("choir_busy") == 0)

    @contextmanager
    def left(self, who: str = "the client") -> Iterator[None]:
        """Within this a client hangs up while its text is generated; the work has to end after it."""
        before = self.figure("choir_gateway_given_up_total")
        yield
        self._until(who, lambda: self.figure("choir_gateway_given_up_total") > before)
        self._until(who, lambda: self.figure("choir_busy") == 0)

    def restart(self) -> None:
        """Kills the gateway; returns when another one answers."""
        urllib.request.urlopen(urllib.request.Request(f"{self.control}/restart", method="POST"), timeout=240)

    def asked_again(self, ask: Callable[[], str]) -> str:
        """What a client does that is sent away: it asks again, until the gateway is back."""
        end_s = time.monotonic() + BACK_DEADLINE_S
        while True:
            try:
                return ask()
            except Exception:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.2)

    @staticmethod
    def _until(who: str, holds: Callable[[], bool]) -> None:
        end_s = time.monotonic() + CANCEL_DEADLINE_S
        while not holds():
            assert time.monotonic() < end_s, f"{who} had gone, and its work went on"
            time.sleep(0.05)


def get(url: str) -> str:
    """A page."""
    with urllib.request.urlopen(url, timeout=30) as reply:
        return reply.read().decode()


def must_fail(ask: Callable[[], object], *said: str) -> str:
    """The error of something that has to fail, which says all of this."""
    try:
        ask()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        assert all(word in text for word in said), text
        return text[:160]
    raise AssertionError("it was not refused")


def unheard() -> str:
    """A question that nobody has asked: an answer from the cache comes at once, and takes no tokens of a
    key."""
    return f"{QUESTION} ({uuid.uuid4().hex[:8]})"


def must_be_limited(ask: Callable[[], object], *said: str) -> Exception:
    """The error of who asks `unheard` questions with the key of next to no tokens, which says all of this, or
    why by default."""
    for _ in range(MOST_UNTIL_LIMITED):
        try:
            ask()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            assert all(word in text for word in said or (LIMITED,)), text
            return error
    raise AssertionError("it was never told to wait")


def waits(headers: object) -> str:
    """What a refusal says of when to ask again."""
    seconds = int(headers["retry-after"])  # type: ignore[index]
    assert 1 <= seconds <= 60, seconds
    return f"retry-after: {seconds}"


def cut(pieces: Iterator[object], mesh: Mesh) -> str:
    """A stream whose gateway is killed after its third piece: it must not end as if it were whole."""
    for _ in range(3):
        next(pieces)
    mesh.restart()
    try:
        rest = sum(1 for _ in pieces)
    except Exception as error:
        return type(error).__name__
    return f"ended without an error after {rest} more"


def run(
    client: str,
    version: str,
    *scenarios: Callable[[Mesh], object],
    missing: str | dict[str, str] = "the client has nothing for it",
) -> None:
    """Runs the scenarios that were asked for, all of them unless the command line names some.

    A scenario has its function's name; those of `SCENARIOS` that are not given are told as `missing`, with
    one reason for all or each its own.
    """
    offered = {scenario.__name__.replace("_", "-"): scenario for scenario in scenarios}
    for name in sys.argv[1:] or [*SCENARIOS, *(name for name in offered if name not in SCENARIOS)]:
        began_s = time.monotonic()
        outcome, detail = "ok", ""
        try:
            if name not in offered:
                raise NotOffered(missing if isinstance(missing, str) else missing[name])
            found = offered[name](Mesh())
            detail = "" if found is None else str(found)
        except NotOffered as error:
            outcome, detail = "not offered", str(error)
        except BaseException as error:
            outcome, detail = "failed", f"{type(error).__name__}: {error}"
            traceback.print_exc()
        line = {
            "client": client,
            "version": version,
            "scenario": name,
            "outcome": outcome,
            "seconds": round(time.monotonic() - began_s, 2),
            "detail": detail[:300],
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
