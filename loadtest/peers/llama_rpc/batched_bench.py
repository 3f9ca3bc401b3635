"""llama.cpp's batched bench over its RPC servers: the command lines, and what the bench says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.broker.local_cluster import free_port
from infra.host.children.processes import PREEXEC
from loadtest.peers.environments import CannotStart
from loadtest.peers.llama_rpc.build import Programs
from loadtest.peers.servers import listener

HOST = "127.0.0.1"
CELLS = 256
"""llama.cpp gives each sequence a multiple of so many cells."""
DEADLINE_S = 600.0


@dataclass(frozen=True)
class Work:
    """So many streams, each of which decodes `tokens` after a prompt of `prompt_tokens`."""

    streams: int
    prompt_tokens: int
    tokens: int

    @property
    def cells(self) -> int:
        """The cells that all streams need."""
        one = self.prompt_tokens + self.tokens
        return self.streams * (-(-one // CELLS) * CELLS)


@dataclass(frozen=True)
class RpcNodes:
    """RPC servers that run, each on one core, and the layers that each of them gets."""

    programs: Programs
    cores: tuple[int, ...]
    layers: tuple[int, ...]
    ports: tuple[int, ...]

    async def tokens_per_s(self, model: Path, work: Work, most_rows: int | None = None) -> float:
        """The rate at which all streams decode together. CannotStart, with what the bench wrote last, if it
        does not do the work."""
        return rate(await _output(bench_command(self, model, work, most_rows)), work)


@asynccontextmanager
async def rpc_nodes(
    programs: Programs, cores: tuple[int, ...], layers: tuple[int, ...]
) -> AsyncIterator[RpcNodes]:
    """Starts a server on each core, and ends them with the context. CannotStart if one does not listen."""
    async with AsyncExitStack() as stack:
        ports = []
        for core in cores:
            ports.append(free_port())
            await stack.enter_async_context(listener(server_command(programs, core, ports[-1]), ports[-1]))
        yield RpcNodes(programs, cores, layers, tuple(ports))


def server_command(programs: Programs, core: int, port: int) -> list[str]:
    """A node: one core, one thread."""
    options = ["--host", HOST, "--port", str(port), "--device", "CPU", "--threads", "1"]
    return ["taskset", "-c", str(core), str(programs.server), *options]


def bench_command(nodes: RpcNodes, model: Path, work: Work, most_rows: int | None) -> list[str]:
    """The bench on the cores of all nodes. It evaluates at most `most_rows` rows of a step at a time, or all
    of them; what has a default that suits is left to it."""
    *before, last = nodes.layers
    options = {
        "--model": str(model),
        "--rpc": ",".join(f"{HOST}:{port}" for port in nodes.ports),
        "--gpu-layers": str(sum(nodes.layers) + 1),
        # The last device has the output matrix too, which llama.cpp counts for a layer.
        "--tensor-split": ",".join(str(layers) for layers in (*before, last + 1)),
        "--threads": "1",
        "--ctx-size": str(work.cells),
        "-npp": str(work.prompt_tokens),
        "-ntg": str(work.tokens),
        # Its log is not flushed as it ends: one stream more gives it time to write the row that is read.
        "-npl": f"{work.streams},1",
        "--output-format": "jsonl",
    }
    if most_rows is not None:
        options["--ubatch-size"] = str(most_rows)
    cores = ",".join(str(core) for core in nodes.cores)
    told = [word for option in options.items() for word in option]
    return ["taskset", "-c", cores, str(nodes.programs.bench), *told]


def rate(output: str, work: Work) -> float:
    """Decoded tokens per second by the lines of JSON among what the bench wrote. CannotStart if it tells of
    other work, or of none: it leaves out what its cells have no room for."""
    told: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    asked = {"pl": work.streams, "pp": work.prompt_tokens, "tg": work.tokens}
    found = [float(row["speed_tg"]) for row in told if {name: row[name] for name in asked} == asked]
    if not found:
        raise CannotStart(f"the batched bench told of no run like {asked}")
    return found[0]


async def _output(command: Sequence[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=PREEXEC,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise CannotStart(f"the batched bench took longer than {DEADLINE_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = errors.decode(errors="replace").strip().splitlines()
        last = said[-1] if said else "nothing"
        raise CannotStart(f"the batched bench ended with {process.returncode} and said last: {last}")
    return output.decode(errors="replace")
