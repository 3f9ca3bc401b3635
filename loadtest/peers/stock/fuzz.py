"""`python -m loadtest.peers.stock.fuzz`: schemathesis over the gateway's description, and over Ollama's.

Every operation of `/openapi.json`, and of the description in Ollama's own repository, is sent what it allows
and what it does not. No reply may be a 5xx, other than 501 and 503, and none may keep its client waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadtest.peers.environments import CannotStart, environment, version_in
from loadtest.peers.stock.catalogue import OLLAMA_MODULE, SCRIPTS
from loadtest.peers.stock.mesh import INSTANT, shown_mesh

PATIENCE_S = 60
"""So long may a reply take: the models of this mesh answer at once."""
LIMIT_S = 1_800
"""All operations have their turn within it also where other processes compute."""
SEED = 7
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
    """What `program`, schemathesis, finds: operations, requests, statuses, and what was not as it may be."""
    with tempfile.TemporaryDirectory() as reports:
        events = Path(reports) / "events.ndjson"
        command = [
            str(program), "run", description,
            "--url", address,
            "--checks", "not_a_server_error",
            "--phases", "examples,coverage,fuzzing",
            "--max-examples", str(examples),
            "--max-time", str(int(limit_s)),
            "--request-timeout", str(PATIENCE_S),
            "--seed", str(SEED),
            "--continue-on-failure",
            "--no-color",
            "--report", "ndjson",
            "--report-ndjson-path", str(events),
        ]  # fmt: skip
        told = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(SCRIPTS)}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s + 120, env=told, cwd=reports
        )
        found = _read(events)
    return {
        **found,
        "exit_code": done.returncode,
        "said": "" if done.returncode == 0 else done.stdout[-6000:],
    }


def _read(events: Path) -> Report:
    """Operations, requests and statuses, as schemathesis has written them down."""
    operations: set[str] = set()
    statuses: dict[str, int] = {}
    requests = 0
    for line in events.read_text().splitlines() if events.exists() else ():
        event = json.loads(line).get("ScenarioFinished")
        if not event:
            continue
        recorder = event.get("recorder") or {}
        operations.add(str(recorder.get("label")))
        for each in (recorder.get("interactions") or {}).values():
            requests += 1
            status = str(((each.get("response") or {}).get("status_code")) or "none")
            statuses[status] = statuses.get(status, 0) + 1
    return {"operations": len(operations), "requests": requests, "statuses": dict(sorted(statuses.items()))}


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
                        fuzzed, program, where, mesh.address, examples, limit_s / 2
                    )
                    found[name] = {"version": version_in(folder, "schemathesis"), **report}
                except CannotStart as error:
                    found[name] = f"could not be started: {error}"
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; 1 if a reply was not as it may be."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.peers.stock.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=25, help="for each operation (25)")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds in all")
    options = parser.parse_args(arguments)
    found = asyncio.run(run(options.examples, options.limit))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return int(any(isinstance(one, dict) and one["exit_code"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
