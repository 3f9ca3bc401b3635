"""`python -m loadtest.trial`: three hosts under load and faults of every kind, and what their streams say
afterwards.

Exit codes: 0 nothing was lost and nothing came twice, 1 something was, 2 wrong usage, 3 the hosts did not
come up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from infra.testing.networks import can_lose
from loadtest.chaos import Fault
from loadtest.faults import LoadtestError, WrongOption, complain
from loadtest.generate.arrivals import Rate
from loadtest.generate.plan import LoadPlan
from loadtest.generate.workloads import AskOptions
from loadtest.session import Session
from loadtest.trial.checker import check
from loadtest.trial.hosts import MODELS, Hosts
from loadtest.trial.messages import inside
from loadtest.trial.registered import half_registered
from loadtest.trial.report import of_verdict
from loadtest.trial.starving import effects
from loadtest.trial.strikes import Strikes

WHOLE, BROKEN = 0, 1

SLOW_FLAPS = "flap-slowly"
FLAP_FOR_S = 20.0
LOSSY, DEAF, MUTE = "lossy-link", "deaf-host", "mute-host"
LOSING = (LOSSY, DEAF, MUTE)
KINDS: dict[str, tuple[str, str, float]] = {
    "kill-agent": ("kill", "agent", 0.0),
    "kill-router": ("kill", "router", 0.0),
    "kill-aggregator": ("kill", "aggregator", 0.0),
    "kill-metrics": ("kill", "metrics", 0.0),
    "pause-agent": ("pause", "agent", 4.0),
    "pause-router": ("pause", "router", 4.0),
    "restart-broker": ("restart", "broker", 0.0),
    "elect-leader": ("elect", "broker", 0.0),
    "partition-host": ("partition", "host", 5.0),
    "flap-link": ("flap", "host", 3.0),
    SLOW_FLAPS: ("sway", "host", FLAP_FOR_S),
    LOSSY: ("lose", "host", 10.0),
    DEAF: ("deafen", "host", 5.0),
    MUTE: ("mute", "host", 5.0),
    "fill-broker": ("fill", "broker", 5.0),
    "fill-metrics": ("fill", "metrics", 5.0),
    "slow-consumer": ("stall", "client", 4.0),
    "starve-agent": ("starve", "agent", 10.0),
    "duplicate-commands": ("duplicate", "commands", 0.0),
    "poison-command": ("poison", "commands", 0.0),
    "newer-command": ("outdate", "commands", 0.0),
    "mixed-versions": ("mix", "host", 10.0),
}
"""Kind of fault -> what is done, to whom, and for how many seconds. A clock that is wrong is one from the
start."""
END = "end-host"


def plan_faults(
    kinds: Sequence[str],
    rounds: int,
    duration_s: float,
    seed: int,
    *,
    end: bool,
    flap_for_s: float = FLAP_FOR_S,
) -> list[Fault]:
    """Every kind in every round, in an order and at moments that the seed decides. With `end` one host goes
    for good after the others. Slow flaps last `flap_for_s`."""
    known = KINDS | {SLOW_FLAPS: (*KINDS[SLOW_FLAPS][:2], flap_for_s)}
    drawn = random.Random(seed)
    names = [kind for _ in range(rounds) for kind in drawn.sample(kinds, len(kinds))]
    busy_s = duration_s * (0.75 if end else 0.9)
    step_s = busy_s / max(1, len(names))
    faults = [
        Fault(verb, whom, (number + drawn.random()) * step_s, pause_s)
        for number, (verb, whom, pause_s) in enumerate(known[name] for name in names)
    ]
    return [*faults, Fault("end", "host", duration_s * 0.8)] if end else faults


async def trial(options: argparse.Namespace, kinds: Sequence[str], folder: Path) -> dict[str, Any]:
    """One run from beginning to end: its figures."""
    run = f"trial-{int(time.time())}"
    hosts = Hosts(folder, skewed=options.skew)
    console = Console(stderr=True)
    began_s = time.monotonic()
    with hosts.running():
        up_s = time.monotonic() - began_s
        console.print(f"three hosts are up after {up_s:.0f} s; seed {options.seed}", highlight=False)
        duration_s = options.requests / options.rate
        strikes = Strikes(hosts, options.seed, run)
        plan = LoadPlan(
            run=run,
            ask=AskOptions(models=MODELS, stream=False, timeout_s=options.patience),
            mix={"single": 0.8, "ensemble": 0.2},
            rate=Rate(options.rate),
            requests=options.requests,
            duration_s=duration_s + 1,
            seed=options.seed,
        )
        faults = plan_faults(
            kinds, options.rounds, duration_s, options.seed, end=options.end, flap_for_s=options.flap_for
        )
        session = Session(hosts.url, folder, (), quiet=True, verbs=strikes.verbs)
        outcome = await session.run(plan, faults)
        console.print("looking who is there ...")
        unlike = await half_registered(hosts.living)
        console.print("reading the streams ...")
        client = await inside(",".join(host.url for host in hosts.living))
        try:
            verdict = await check(
                client, run, outcome.measured, strikes.messages.poisoned, strikes.messages.newer, unlike
            )
        finally:
            await client.close()
    return {
        "run": run,
        "seed": options.seed,
        "rate": options.rate,
        "skew_s": options.skew,
        "seconds": round(time.monotonic() - began_s, 1),
        "load_1m": round(psutil.getloadavg()[0], 2),
        "latency_ms": {name: found.model_dump() for name, found in outcome.summary.metrics.items()},
        "faults": [{"at_s": round(mark.at_s, 2), "what": mark.text} for mark in outcome.marks],
        "out_of_memory": effects(strikes.starved),
        "mixed_versions": [asdict(one) for one in strikes.set_back],
        **verdict.figures(),
    }


def parser() -> argparse.ArgumentParser:
    """All options."""
    options = argparse.ArgumentParser(prog="python -m loadtest.trial", description=__doc__)
    options.add_argument("--requests", type=int, default=2_000)
    options.add_argument("--rate", type=float, default=40.0, help="requests per second (40)")
    options.add_argument("--rounds", type=int, default=1, help="how often each kind of fault comes (1)")
    options.add_argument("--kinds", default="", help=f"only these, with commas: {', '.join(KINDS)}")
    options.add_argument("--end", action="store_true", help="in the end one host goes for good")
    options.add_argument(
        "--flap-for",
        type=float,
        default=FLAP_FOR_S,
        metavar="S",
        help=f"how long {SLOW_FLAPS} lasts ({FLAP_FOR_S:g})",
    )
    options.add_argument(
        "--skew", type=float, default=3_600.0, metavar="S", help="the clock of host 3 (an hour ahead)"
    )
    options.add_argument(
        "--patience", type=float, default=60.0, metavar="S", help="timeout of a request (60)"
    )
    options.add_argument("--seed", type=int, help="decides what happens when (drawn, if not given)")
    options.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="where logs stay (a folder that is removed)"
    )
    options.add_argument("--json", action="store_true", help="print one JSON document")
    return options


def _possible() -> list[str]:
    """All kinds that this machine has the tools for."""
    return [kind for kind in KINDS if kind not in LOSING or can_lose()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    options = parser().parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    try:
        kinds = [name.strip() for name in options.kinds.split(",") if name.strip()] or _possible()
        if unknown := [name for name in kinds if name not in KINDS]:
            raise WrongOption(f"--kinds {unknown[0]}: there are {', '.join(KINDS)}")
        if (losing := sorted({*LOSING} & {*kinds})) and not can_lose():
            raise WrongOption(f"--kinds {losing[0]}: needs nft (nftables), which is not on PATH")
        with tempfile.TemporaryDirectory() as folder:
            if options.keep is not None:
                if options.keep.exists():
                    raise WrongOption(f"--keep {options.keep}: it is there already")
                options.keep.mkdir(parents=True)
            figures = asyncio.run(trial(options, kinds, (options.keep or Path(folder)).absolute()))
    except LoadtestError as error:
        return complain("trial", error)
    if options.json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        for fault in figures["faults"]:
            console.print(f"{fault['at_s']:7.1f} s  {fault['what']}", style="yellow")
        console.print(of_verdict(figures))
    return WHOLE if figures["whole"] else BROKEN


if __name__ == "__main__":
    sys.exit(main())
