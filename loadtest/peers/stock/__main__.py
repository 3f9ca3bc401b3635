"""`python -m loadtest.peers.stock [CLIENT ...] [--scenario NAME] [--json]`: clients before a mesh."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from llama_cpp import GGML_TYPE_F16, GGML_TYPE_Q8_0
from rich.console import Console
from rich.table import Table

from infra.broker.local_cluster import free_port
from infra.host.children.processes import PREEXEC
from loadtest.peers.environments import CannotStart
from loadtest.peers.servers import server
from loadtest.peers.stock.catalogue import CLIENTS, SCRIPTS
from loadtest.peers.stock.mesh import Shown, shown_mesh

SCRIPT_DEADLINE_S = 3_600.0
FAILED = ("failed", "cannot start")

Line = dict[str, str | float]


async def outcomes(names: Sequence[str], scenarios: Sequence[str]) -> AsyncIterator[Line]:
    """One line for each client and scenario; one for a client that is not to be had."""
    with tempfile.TemporaryDirectory() as folder:
        async with shown_mesh(Path(folder)) as mesh:
            for name in names:
                async for line in _of(name, mesh, scenarios):
                    yield line


async def _of(name: str, mesh: Shown, scenarios: Sequence[str]) -> AsyncIterator[Line]:
    try:
        command, told = await asyncio.to_thread(CLIENTS[name].install)
        async with _reference(name, mesh.begun) as reference:
            script = str(SCRIPTS / CLIENTS[name].script)
            environment = {**os.environ, **mesh.environment, **told, **reference}
            process = await asyncio.create_subprocess_exec(
                *command,
                script,
                *scenarios,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                preexec_fn=PREEXEC,
            )
            assert process.stdout is not None
            try:
                async with asyncio.timeout(SCRIPT_DEADLINE_S):
                    async for said in process.stdout:
                        if said.startswith(b'{"client"'):
                            yield json.loads(said)
                    if await process.wait():
                        yield _failed(name, "failed", f"the script ended with {process.returncode}")
            except TimeoutError:
                yield _failed(name, "failed", f"it took longer than {SCRIPT_DEADLINE_S:g} s")
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    except CannotStart as error:
        yield _failed(name, "cannot start", f"{error} (needs {CLIENTS[name].needs})")


@asynccontextmanager
async def _reference(name: str, model: Path) -> AsyncIterator[dict[str, str]]:
    """llama.cpp's own server with the same model, and keys and values of the engine's form, for the client
    that compares with it."""
    if name != "lm-eval":
        yield {}
        return
    port = free_port()
    told = ("--port", str(port), "--n_ctx", "512", "--logits_all", "true")
    form = ("--type_k", str(GGML_TYPE_Q8_0), "--type_v", str(GGML_TYPE_F16), "--flash_attn", "true")
    command = (sys.executable, "-m", "llama_cpp.server", "--model", str(model), *told, *form)
    url = f"http://127.0.0.1:{port}"
    async with server(command, url, "/v1/models"):
        yield {"CHOIR_REFERENCE": url}


def _failed(client: str, outcome: str, why: str) -> Line:
    return {
        "client": client,
        "version": "",
        "scenario": "",
        "outcome": outcome,
        "seconds": 0.0,
        "detail": why,
    }


async def run(names: Sequence[str], scenarios: Sequence[str], as_json: bool) -> int:
    """Tells all outcomes; 1 if one is not as it should be."""
    table = Table("client", "version", "scenario", "outcome", "s", "")
    bad = 0
    async for line in outcomes(names, scenarios):
        bad += line["outcome"] in FAILED
        if as_json:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        table.add_row(*(str(value) for value in line.values()))
    if not as_json:
        Console().print(table)
    return int(bad > 0)


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.peers.stock", description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=", ".join(CLIENTS))
    parser.add_argument("--scenario", action="append", default=[], help="only these")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each outcome")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.clients if name not in CLIENTS]:
        sys.stderr.write(f"there is no client {unknown[0]!r}; there are: {', '.join(CLIENTS)}\n")
        return 2
    return asyncio.run(run(options.clients or list(CLIENTS), options.scenario, options.json))


if __name__ == "__main__":
    sys.exit(main())
