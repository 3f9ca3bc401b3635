"""The command line of the load test, and the plan that it means."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from loadtest.chaos import Fault, parse_faults
from loadtest.faults import WrongOption
from loadtest.generate.arrivals import ARRIVALS, Rate
from loadtest.generate.plan import LoadPlan
from loadtest.generate.prompts import PROMPTS, PromptOptions
from loadtest.generate.workloads import WORKLOADS, AskOptions, parse_mix
from loadtest.outcome.objectives import Condition, Objective, parse_conditions, parse_objectives

DEFAULT_WARM_UP_S = 5.0

DESCRIPTION = """\
Loads a mesh and measures it. Without --url it starts one of the demo models on this host, and stops it
at the end; without anything it asks 6 questions a second for two minutes, of one model or of all of them.
"""

EPILOG = """\
figures: every latency is given from the moment a request was sent and, as *_intended, from the moment it
was meant to be sent; if the two differ, requests started late. exit codes: 0 done, 1 failed or a --fail-if
came true, 2 wrong usage, 3 no mesh, 130 interrupted (what was measured is kept).

  just loadtest --rate 20 --duration 60 --goodput ttft:300 e2e:2000 --fail-if 'e2e.p99>5000' 'failed>0'
  just loadtest --workload single:0.5,ensemble:0.3,chain:0.2 --arrivals gamma --burstiness 0.3
  just loadtest --sweep --duration 20
  just loadtest --chaos kill-agent@20,pause-agent@35:5,kill-aggregator@50,restart-broker@70
  just loadtest-compare results/loadtest_A results/loadtest_B
"""


def parser() -> argparse.ArgumentParser:
    """All options, with what they do."""
    options = argparse.ArgumentParser(
        prog="loadtest",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    load = options.add_argument_group("how much")
    load.add_argument("--rate", type=float, default=6.0, help="requests per second (6)")
    load.add_argument("--arrivals", default="poisson", help=f"{', '.join(ARRIVALS)} (poisson)")
    load.add_argument(
        "--burstiness", type=float, default=1.0, help="shape of gamma arrivals; below 1: bursts"
    )
    load.add_argument("--ramp-to", type=float, help="the rate at the end of a ramp")
    load.add_argument("--concurrency", type=int, help="closed loop: so many users, instead of a rate")
    load.add_argument(
        "--max-in-flight", type=int, help="requests open at once, as with a pool of connections"
    )
    load.add_argument("--duration", type=float, default=120.0, metavar="S", help="seconds (120)")
    load.add_argument("--requests", type=int, help="so many requests, instead of a duration")
    load.add_argument("--warm-up", type=float, metavar="S", help="seconds left out (5; 0 with --requests)")
    load.add_argument("--sweep", action="store_true", help="find the rate that the mesh can bear")
    load.add_argument("--processes", type=int, default=1, help="generator processes (1)")
    load.add_argument("--seed", type=int, default=0, help="the same seed asks the same (0)")

    what = options.add_argument_group("what")
    what.add_argument(
        "--workload", default="single:0.7,ensemble:0.3", help=f"{', '.join(WORKLOADS)}, or a mix with weights"
    )
    what.add_argument("--models", default="", metavar="A,B", help="who is asked; without it, all models")
    what.add_argument("--strategies", default="majority", metavar="S,S", help="of an ensemble (majority)")
    what.add_argument("--prompts", default="random", help=f"{', '.join(PROMPTS)} (random)")
    what.add_argument("--prompt-file", type=Path, help="questions (JSONL) or conversations (ShareGPT)")
    what.add_argument("--words", default="8:64", metavar="MIN:MAX", help="length of random prompts (8:64)")
    what.add_argument("--max-tokens", type=int, default=32, help="length of an answer at most (32)")
    what.add_argument("--temperature", type=float, default=0.0)
    what.add_argument("--timeout", type=float, default=60.0, metavar="S", help="of a request (60)")
    what.add_argument("--no-stream", action="store_true", help="do not stream: no ttft, no itl")

    where = options.add_argument_group("where")
    where.add_argument("--url", help="a mesh that runs, such as nats://127.0.0.1:4222")
    where.add_argument("--config", type=Path, help="the choir.toml of the mesh that is started")
    where.add_argument("--chaos", default="", help="VERB-SERVICE@SECONDS,...: see the examples")

    out = options.add_argument_group("what comes of it")
    out.add_argument("--goodput", nargs="+", default=[], metavar="METRIC:MS", help="objectives of a request")
    out.add_argument("--fail-if", nargs="+", default=[], metavar="FIGURE>LIMIT", help="exit 1 if one is true")
    out.add_argument("--out", type=Path, help="a folder (results/loadtest_TIME_NAME)")
    out.add_argument("--name", default="run", help="part of the folder's name (run)")
    out.add_argument("--json", action="store_true", help="print the summary as one JSON document")
    return options


def plan_of(options: argparse.Namespace, models: tuple[str, ...]) -> LoadPlan:
    """The run that is meant; WrongOption names the option that cannot be."""
    ask = AskOptions(
        models=models,
        strategies=listed(options.strategies),
        max_tokens=_from_one("max-tokens", options.max_tokens),
        temperature=options.temperature,
        timeout_s=_seconds("timeout", options.timeout),
        stream=not options.no_stream,
    )
    low, high = _range(options.words)
    return LoadPlan(
        run=f"load-{options.name}-{time.time_ns():x}",
        ask=ask,
        mix=parse_mix(options.workload),
        arrivals=_known_arrivals(options),
        rate=Rate(options.rate, options.burstiness, options.ramp_to, options.duration),
        concurrency=options.concurrency,
        duration_s=options.duration,
        requests=options.requests,
        warm_up_s=_warm_up_s(options),
        prompt=PromptOptions(options.prompts, low, high, options.prompt_file),
        seed=options.seed,
        processes=options.processes,
        max_in_flight=options.max_in_flight,
    )


def checked(
    options: argparse.Namespace,
) -> tuple[tuple[Objective, ...], tuple[Condition, ...], tuple[Fault, ...]]:
    """What can be checked before a mesh is there: objectives, conditions, faults, and the plan itself."""
    plan = plan_of(options, ("any", "other"))
    next(iter(plan.share(0)))
    return (
        parse_objectives(options.goodput),
        parse_conditions(options.fail_if),
        parse_faults(options.chaos, options.duration),
    )


def listed(text: str) -> tuple[str, ...]:
    """`A, B` as its parts; nothing as none."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _warm_up_s(options: argparse.Namespace) -> float:
    """What is left out unless it is said: 5 seconds, or a quarter of a run that is shorter than 20."""
    if options.warm_up is not None:
        return float(options.warm_up)
    return 0.0 if options.requests is not None else min(DEFAULT_WARM_UP_S, options.duration / 4)


def _known_arrivals(options: argparse.Namespace) -> str:
    name = str(options.arrivals)
    if name not in ARRIVALS:
        raise WrongOption(f"--arrivals {name}: there are {', '.join(ARRIVALS)}")
    if (name == "ramp") != (options.ramp_to is not None):
        raise WrongOption("--ramp-to belongs to --arrivals ramp, which needs it")
    return name


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    try:
        return int(low), int(high or low)
    except ValueError as error:
        raise WrongOption(f"--words {text}: MIN:MAX, such as 8:64") from error


def _from_one(name: str, number: int) -> int:
    if number < 1:
        raise WrongOption(f"--{name} is {number}: it has to be 1 or more")
    return number


def _seconds(name: str, seconds: float) -> float:
    if not 0.1 <= seconds <= 3600:
        raise WrongOption(f"--{name} is {seconds:g}: it has to be from 0.1 to 3600 seconds")
    return seconds
