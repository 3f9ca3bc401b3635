"""`python -m loadtest.peers.stock.fuzz`: schemathesis over the gateway's description, and over Ollama's.

Every operation of `/openapi.json`, and of the description in Ollama's own repository, is sent what it allows
and what it does not. No reply may be a 5xx, other than 501 and 503, and none may keep its client waiting. The
streams of pages have no end and are left out.

A run takes the seconds that it is given, four fifths of them for the gateway's description, which has
eight times as many operations, and tells what it came to: how
many requests each operation had and with which statuses, which operations had none, and of each failure a
line of curl that shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from loadtest.peers.environments import CannotStart, environment, version_in
from loadtest.peers.stock.catalogue import OLLAMA_MODULE, SCRIPTS
from loadtest.peers.stock.mesh import INSTANT, shown_mesh

PATIENCE_S = 60
"""So long may a reply take: the models of this mesh answer at once."""
SECONDS = 1_200.0
"""Schemathesis sends requests until its time is up."""
LEAST_S = 20.0
SHARES = {"gateway": 0.8, "ollama": 0.2}
STOP_S = PATIENCE_S + 120.0
"""After its time schemathesis waits for what is in work, and writes its report; then it is interrupted."""
MOST_TOLD = 20
ALLOWED_AS, ALLOWED = "499", "501 or 503"
"""As what the hooks hand on the statuses of what is not done here, and of a mesh that is asked too much."""
ENDLESS = "/live(/|$)"
"""Pages that stay true are streams without an end: who waits for it sends nothing else."""
SEED = 7
LEFT_OUT = ("user-agent", "accept-encoding", "connection", "content-length")
"""Headers that curl writes itself."""
Report = dict[str, Any]


def ollama_description() -> Path:
    """The file in Ollama's repository. CannotStart without Go, which fetches it."""
    go = shutil.which("go")
    if go is None:
        raise CannotStart("go is not on the path: it fetches Ollama's repository")
    command = [go, "mod", "download", "-json", f"{OLLAMA_MODULE}@latest"]
    where = tempfile.gettempdir()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=where)
    path = Path(json.loads(done.stdout or "{}").get("Dir", "")) / "docs" / "openapi.yaml"
    if done.returncode or not path.is_file():
        raise CannotStart(f"Ollama's repository: {done.stderr.strip()[-200:] or 'it has no description'}")
    return path


def fuzzed(program: Path, description: str, address: str, examples: int, limit_s: float) -> Report:
    """What `program`, schemathesis, finds within `limit_s`: requests and statuses of each operation, and what
    was not as it may be. It sends requests until the time is up: the more time, the more turns each operation
    has. `ended` is `interrupted` where it did not end by itself after that."""
    with tempfile.TemporaryDirectory() as reports:
        events = Path(reports) / "events.ndjson"
        command = [
            str(program), "run", description,
            "--url", address,
            "--checks", "not_a_server_error",
            "--phases", "examples,coverage,fuzzing",
            "--exclude-path-regex", ENDLESS,
            "--max-examples", str(examples),
            "--max-time", str(max(1, int(limit_s))),
            "--request-timeout", str(PATIENCE_S),
            "--seed", str(SEED),
            "--continue-on-failure",
            "--no-color",
            "--report", "ndjson",
            "--report-ndjson-path", str(events),
        ]  # fmt: skip
        told = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(SCRIPTS)}
        with (Path(reports) / "said").open("w+") as said:
            running = subprocess.Popen(command, stdout=said, stderr=said, env=told, cwd=reports)
            interrupted = not _ended(running, limit_s + STOP_S)
            said.seek(0)
            found, text = read_events(events), said.read()
    failed = bool(found["failures"]) or interrupted or running.returncode != 0 or not found["requests"]
    return {**found, "exit_code": int(failed), "said": text[-6000:] if failed else ""}


def _ended(running: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Whether it has ended by itself within `limit_s`; else it is made to."""
    for end in (None, signal.SIGINT, signal.SIGKILL):
        if end is not None:
            running.send_signal(end)
        try:
            running.wait(limit_s if end is None else STOP_S)
        except subprocess.TimeoutExpired:
            continue
        return end is None
    return False


def read_events(events: Path) -> Report:
    """What schemathesis has written down: how many requests each operation had and with which statuses, the
    operations without any, how many operations each phase came to, how the run ended, and the failures, each
    with a line of curl."""
    operations: dict[str, dict[str, int]] = {}
    phases: dict[str, set[str]] = {}
    failures: list[Report] = []
    ended, described = "interrupted", 0
    for written in events.read_text().splitlines() if events.exists() else ():
        (kind, event), *_ = json.loads(written).items()
        if kind == "LoadingFinished":
            described = event["statistic"]["operations"]["selected"]
        elif kind == "EngineFinished":
            ended = "after its time" if event["stop_reason"] == "max_time" else event["stop_reason"]
        elif kind == "ScenarioFinished" and (label := (recorder := event["recorder"] or {}).get("label")):
            statuses = operations.setdefault(label, {})
            if recorder.get("interactions"):
                phases.setdefault(event["phase"], set()).add(label)
            checks = recorder.get("checks") or {}
            for case, exchange in (recorder.get("interactions") or {}).items():
                status = str((exchange.get("response") or {}).get("status_code") or "none")
                status = ALLOWED if status == ALLOWED_AS else status
                statuses[status] = statuses.get(status, 0) + 1
                wrong = [check["name"] for check in checks.get(case) or () if check["status"] == "failure"]
                if wrong or status == "none":
                    curl = curl_of(exchange["request"])
                    told = {"operation": label, "status": status, "what": ", ".join(wrong), "curl": curl}
                    failures.append(told)
    none = [label for label, statuses in operations.items() if not statuses]
    return {
        "ended": ended,
        "described": described,
        "operations": len(operations) - len(none),
        "without_requests": sorted(none),
        "operations_of_phase": {phase: len(labels) for phase, labels in phases.items()},
        "requests": sum(sum(statuses.values()) for statuses in operations.values()),
        "statuses": _sum(operations.values()),
        "by_operation": {name: dict(sorted(found.items())) for name, found in sorted(operations.items())},
        "failures": failures[:MOST_TOLD],
        "failures_in_all": len(failures),
    }


def _sum(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))


def curl_of(request: Report) -> str:
    """A line for a shell that sends a request again, byte for byte."""
    parts = ["curl", "-i", "-X", str(request["method"])]
    for name, value in (request.get("headers") or {}).items():
        if name.lower() not in LEFT_OUT:
            values = value if isinstance(value, list) else [value]
            parts += [part for one in values for part in ("-H", f"{name}: {one}")]
    body = (request.get("body") or {}).get("$base64")
    if body:
        parts += ["--data-binary", "@-"]
    line = shlex.join([*parts, str(request["uri"])])
    return f"echo {body} | base64 -d | {line}" if body else line


async def run(examples: int, limit_s: float) -> dict[str, Report | str]:
    """Both descriptions, one after the other. CannotStart where schemathesis is not to be had."""
    folder = environment("schemathesis", ["schemathesis"])
    program = folder / "bin" / "schemathesis"
    found: dict[str, Report | str] = {}
    with tempfile.TemporaryDirectory() as state:
        async with shown_mesh(Path(state), INSTANT) as mesh:
            told: dict[str, Callable[[], str]] = {
                "gateway": lambda: f"{mesh.address}/openapi.json",
                "ollama": lambda: str(ollama_description()),
            }
            for name, description in told.items():
                try:
                    where = await asyncio.to_thread(description)
                    report = await asyncio.to_thread(
                        fuzzed, program, where, mesh.address, examples, limit_s * SHARES[name]
                    )
                    found[name] = {"version": version_in(folder, "schemathesis"), **report}
                except CannotStart as error:
                    found[name] = f"could not be started: {error}"
    return found


def summary(name: str, found: Report | str) -> str:
    """One line of what came of a description: also how much of it had no turn."""
    if isinstance(found, str):
        return f"{name}: {found}"
    met = f"{found['requests']:,} requests, {found['operations']} of {found['described']} operations"
    return f"{name}: {met}, ended {found['ended']}, {found['failures_in_all']} failures"


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; 1 if a reply was not as it may be."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.peers.stock.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=25, help="for each operation (25)")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"in all ({SECONDS:g}), beside the start of a mesh"
    )
    options = parser.parse_args(arguments)
    if options.seconds < LEAST_S:
        parser.error(f"--seconds: at least {LEAST_S:g}, for both descriptions")
    found = asyncio.run(run(options.examples, options.seconds))
    sys.stderr.writelines(summary(name, one) + "\n" for name, one in found.items())
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return int(any(isinstance(one, dict) and one["exit_code"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
