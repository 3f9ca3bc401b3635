"""`python -m loadtest.trial.greedy`: one tenant asks for everything at once, in every way there is, and then
vanishes; another one works meanwhile.

5,000 streaming asks whose replies are not read, 20,000 submits, and as many of every other request that costs
a service something; each kind within `--over` seconds, on a mesh of its own. Exit codes: 0 the other tenant
had all its answers, the greedy one was told what it was refused for, and its places were free again in time;
1 something was not so, 2 wrong usage, 3 no mesh.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
import psutil
from nats.aio.client import Client
from rich.console import Console
from rich.table import Table

from loadtest.bench.flood import ANSWERED, OVERLOADED, Order, Outcome
from loadtest.bench.mesh.tenants.two_tenants import FAST, SLOW, flooding, two_tenants
from loadtest.faults import LoadtestError, WrongOption, complain
from schemas import subjects
from schemas.errors import ChoirError

KEPT, BROKEN = 0, 1
LASTING_S = 600
"""So long a request of the greedy tenant would wait."""
FREE_WITHIN_S = 10.0
"""Places of a client that has vanished are free again within this time."""
PATIENCE_S = 180.0
QUIET_S = 5.0
UNREAD_S = 2.0
PAUSE_S = 0.02
HELD_S = 15.0
"""So long the greedy client waits for what it is not answered soon, before it vanishes."""
MOST_PLACES = 4_096
"""More than one tenant has at a router."""
ASKS, SUBMITS, OTHERS, OVER_S, LIMIT = 5_000, 20_000, 20_000, 2.0, 16
OVERLOADED_CODE = b'"code":"overloaded"'
OFF = ("summarizer", "gateway", "modelstore")
OPERATES = 'role = "operate"'


def _ask(**fields: Any) -> str:
    return json.dumps({"prompt": "Wait.", "model": SLOW, "timeout_s": LASTING_S} | fields)


@dataclass(frozen=True)
class Flood:
    """Requests of one kind, which are answered, with this `code` if it is an error, or refused.

    Of those that are `deaf` no reply is read before the last was sent for a while. Those that are `held` wait
    for an answer that does not come soon.
    """

    subject: str
    body: str = "{}"
    code: str = ANSWERED
    deaf: bool = False
    held: bool = False


FLOODS: dict[str, Flood] = {
    "streams": Flood(subjects.STREAM_ASK, _ask(stream=True), deaf=True, held=True),
    "submits": Flood(subjects.SUBMIT, _ask(), held=True),
    "asks": Flood(subjects.ASK, _ask(), held=True),
    "batch": Flood(subjects.SUBMIT, _ask(priority="batch"), held=True),
    "fetches": Flood(subjects.FETCH, '{"request_id": "greedy", "wait_s": 600}', "unknown_request"),
    "cancels": Flood(subjects.CANCEL, '{"request_id": "nobody-{number}"}', "unknown_request"),
    "status": Flood(subjects.STATUS),
    "models": Flood(subjects.MODELS),
    "nodes": Flood(subjects.NODES),
    "workers": Flood(subjects.WORKER, '{"action": "list"}'),
    "keys": Flood(subjects.KEYS, '{"action": "list"}'),
    "cordons": Flood(subjects.CORDON, '{"action": "list"}'),
    "ensembles": Flood(subjects.ENSEMBLES, '{"action": "list"}'),
    "dead-letters": Flood(subjects.DEAD_LETTERS, '{"action": "list"}'),
    "tokens": Flood(subjects.TOKENIZE, '{"model": "alpha", "text": "a b c"}', "invalid_request"),
    "nonsense": Flood(subjects.ASK, "nonsense", "invalid_request"),
    "sql": Flood(subjects.SQL, '{"statement": "SELECT 1"}'),
    "scores": Flood(subjects.SCORES),
}


@dataclass
class Seen:
    """What the neighbour saw of one kind of request."""

    taken_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """How many, how long (milliseconds), and what went wrong."""
        taken = sorted(self.taken_ms)
        if not taken:
            return {"count": 0, "failed": self.failed}
        return {
            "count": len(taken),
            "p50_ms": round(statistics.median(taken), 2),
            "p95_ms": round(taken[math.ceil(0.95 * len(taken)) - 1], 2),
            "max_ms": round(taken[-1], 2),
            "failed": self.failed,
        }


class Neighbour:
    """Another tenant: asks, looks and cancels, one after another."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls: dict[str, tuple[str, dict[str, Any], str | None]] = {
            "ask": (subjects.ASK, {"prompt": "hi", "model": FAST, "timeout_s": PATIENCE_S}, None),
            "status": (subjects.STATUS, {}, None),
            "cancel": (subjects.CANCEL, {"request_id": "not-one"}, "unknown_request"),
        }

    async def work(self, until: asyncio.Future[Any]) -> dict[str, Seen]:
        """Works until something is done, and at least once; what it saw of each kind of request."""
        seen = {name: Seen() for name in self._calls}
        while True:
            for name, (subject, body, expected) in self._calls.items():
                began_s = time.perf_counter()
                code = await self._code(subject, body)
                seen[name].taken_ms.append((time.perf_counter() - began_s) * 1000)
                if code != expected:
                    seen[name].failed.append(code or "no error where one was expected")
            if until.done():
                return seen
            await asyncio.sleep(PAUSE_S)

    async def _code(self, subject: str, body: dict[str, Any]) -> str | None:
        """The code of the error that a request was answered with."""
        try:
            reply = await self._client.request(subject, json.dumps(body).encode(), timeout=PATIENCE_S)
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
            return type(error).__name__
        found = json.loads(reply.data).get("error")
        return None if found is None else str(found["code"])


async def places_free_after_s(url: str) -> float:
    """After how many seconds a client of the greedy tenant is let in that comes after the one that vanished;
    infinite if it is not within PATIENCE_S."""
    began_s = time.perf_counter()
    flood = FLOODS["streams"]
    client = await nats.connect(url)
    try:
        while (passed_s := time.perf_counter() - began_s) < PATIENCE_S:
            inbox = client.new_inbox()
            replies = await client.subscribe(inbox)
            await client.publish(flood.subject, flood.body.encode(), reply=inbox)
            try:
                reply = await replies.next_msg(1.0)
            except nats.errors.TimeoutError:
                return passed_s  # it waits like anybody else
            if OVERLOADED_CODE not in reply.data:
                return passed_s
            await replies.unsubscribe()
            await asyncio.sleep(PAUSE_S)
        return math.inf
    finally:
        await client.close()


async def one_flood(flood: Flood, order: Order, limit: int | None, folder: Path) -> dict[str, Any]:
    """One flood on a mesh of its own: what became of it, and what the neighbour saw before, beside and after
    it."""
    limits = "" if limit is None else f"\nlimits = {{ requests_in_flight = {limit} }}"
    async with two_tenants(folder, without=OFF, local=OPERATES + limits, other=OPERATES) as mesh:
        neighbour = Neighbour(mesh.other)
        seen = {"quiet": await neighbour.work(asyncio.create_task(asyncio.sleep(QUIET_S)))}
        async with flooding(mesh.supervisor.url, order) as ended:
            seen["beside"] = await neighbour.work(ended)
        outcome = Outcome.model_validate_json(ended.result())
        waits = flood.deaf and limit is None  # what is in flight counts against a limit until it is done
        free_after_s = await places_free_after_s(mesh.supervisor.url) if waits else None
        seen["after"] = await neighbour.work(asyncio.create_task(asyncio.sleep(0)))
    return {
        "flood": outcome.model_dump(),
        "free_after_s": free_after_s,
        **{when: {name: one.figures() for name, one in each.items()} for when, each in seen.items()},
        "p95_ratio": {name: _ratio(one, seen["quiet"][name]) for name, one in seen["beside"].items()},
        "wrong": faults(flood, outcome, limit, seen, free_after_s),
    }


def _ratio(beside: Seen, quiet: Seen) -> float:
    return round(float(beside.figures()["p95_ms"] / quiet.figures()["p95_ms"]), 2)


def faults(
    flood: Flood,
    outcome: Outcome,
    limit: int | None,
    seen: dict[str, dict[str, Seen]],
    free_after_s: float | None,
) -> list[str]:
    """What is not as it should be, in words."""
    wrong = [
        f"the neighbour's {name} failed {when} the flood: {', '.join(sorted(set(one.failed)))}"
        for when, each in seen.items()
        for name, one in each.items()
        if one.failed
    ]
    if strange := outcome.codes.keys() - {flood.code, OVERLOADED}:
        wrong.append(f"the flood was told {', '.join(sorted(strange))}")
    if flood.held and not outcome.overloaded and (limit is not None or outcome.sent > MOST_PLACES):
        wrong.append("the flood was told nothing of a limit")
    if not flood.held and outcome.answered < outcome.sent:
        wrong.append(f"{outcome.sent - outcome.answered} of the flood had no reply")
    if not flood.deaf and outcome.doubled:
        wrong.append(f"{outcome.doubled} of the flood had several replies")
    if free_after_s is not None and free_after_s > FREE_WITHIN_S:
        wrong.append(f"places of a client that vanished were free after {free_after_s:.1f} s")
    return wrong


async def trial(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All floods, one after another; each is told as it ends."""
    console, floods = Console(stderr=True), {}
    counts = {"streams": options.asks, "submits": options.submits}
    for name in options.floods:
        for limit in (None, options.limit):
            flood, title = FLOODS[name], f"{name}, {'no limit' if limit is None else f'limit {limit}'}"
            order = Order(
                subject=flood.subject,
                body=flood.body,
                count=counts.get(name, options.others),
                over_s=options.over,
                unread_s=UNREAD_S if flood.deaf else 0.0,
                patience_s=HELD_S if flood.held else PATIENCE_S,
            )
            place = folder / title.replace(", ", "-").replace(" ", "-")
            place.mkdir()
            floods[title] = await one_flood(flood, order, limit, place)
            console.print(
                f"{title}: {'; '.join(floods[title]['wrong']) or 'as it should be'}", highlight=False
            )
    wrong = any(one["wrong"] for one in floods.values())
    return {"floods": floods, "load_1m": round(psutil.getloadavg()[0], 2), "as_it_should_be": not wrong}


def table(floods: dict[str, Any]) -> Table:
    """What each flood was told, and what it cost the neighbour."""
    shown = Table(
        "flood", "sent", "told", "p95 ask", "status", "cancel", "free after", title="p95: times quiet"
    )
    for title, one in floods.items():
        told = ", ".join(f"{count:,} {code}" for code, count in sorted(one["flood"]["codes"].items()))
        ratios = [f"{one['p95_ratio'][name]:.1f}" for name in ("ask", "status", "cancel")]
        free_s = one["free_after_s"]
        free = "" if free_s is None else f"{free_s:.1f} s"
        shown.add_row(title, f"{one['flood']['sent']:,}", told, *ratios, free)
    return shown


def parser() -> argparse.ArgumentParser:
    """All options."""
    options = argparse.ArgumentParser(prog="python -m loadtest.trial.greedy", description=__doc__)
    options.add_argument("--asks", type=int, default=ASKS, help=f"streaming asks, unread ({ASKS})")
    options.add_argument("--submits", type=int, default=SUBMITS, help=f"submits ({SUBMITS})")
    options.add_argument("--others", type=int, default=OTHERS, help=f"of each other kind ({OTHERS})")
    options.add_argument(
        "--over", type=float, default=OVER_S, metavar="S", help=f"seconds that a flood takes ({OVER_S:g})"
    )
    options.add_argument(
        "--limit",
        type=int,
        default=LIMIT,
        help=f"each flood comes twice: without a limit, and with ({LIMIT})",
    )
    options.add_argument("--floods", nargs="+", default=list(FLOODS), help=f"some of: {', '.join(FLOODS)}")
    options.add_argument("--json", action="store_true", help="print one JSON document")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    options = parser().parse_args(arguments)
    try:
        if unknown := set(options.floods) - FLOODS.keys():
            raise WrongOption(f"--floods {', '.join(sorted(unknown))}: there are {', '.join(FLOODS)}")
        if min(options.asks, options.submits, options.others, options.limit, options.over) <= 0:
            raise WrongOption("all numbers are above 0")
        with tempfile.TemporaryDirectory() as folder:
            figures = asyncio.run(trial(options, Path(folder)))
    except (LoadtestError, ChoirError) as error:
        return complain("greedy", error)
    if options.json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    else:
        Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(table(figures["floods"]))
    return KEPT if figures["as_it_should_be"] else BROKEN


if __name__ == "__main__":
    sys.exit(main())
