"""The mesh that clients are shown: demo models with a gateway, and a control that kills the gateway.

Beside the demo models it has `begun`, one of them that puts its first token before each text, `slow`, whose
text takes twenty seconds, so that there is a middle to hang up in however busy the machine is, `caller`, a
worker that calls the first tool that it is given: the demo models know no tools, and `clerk`, which writes
titles and tags in the place of ensembles. Its store fetches from a
hub that has one of them, `LITTLE`, which an agent loads when it is asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import gguf
import httpx
import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from infra.broker.local_cluster import free_ports
from infra.host.children.processes import PREEXEC, last_lines
from infra.settings import DEMO_MODELS
from infra.testing.choir_up import choir_command, clean_environment, typed
from infra.testing.stand_ins.hub_server import hub_server
from loadtest.peers.environments import CannotStart
from schemas.errors import ChoirError
from services.client import Choir
from services.client.finding.local_mesh import running_mesh

UP_DEADLINE_S = 240.0
BACK_DEADLINE_S = 180.0
STOP_DEADLINE_S = 180.0
WORDS = " ".join(f"word{number}" for number in range(120))
SLOW_MS = 20_000
NOTES = json.dumps({"title": "A Big City", "tags": ["Geography"], "follow_ups": ["And of Peru?"]})
"""What `clerk` says, whichever of them it is asked for."""
CONFIG = """
[broker]
port = 0
[gateway]
port = {gateway}
sets = {{ pair = ["choir-qwen", "choir-llama"] }}
task_model = "clerk"
[modelstore]
enabled = true
hub = "{hub}"
min_free_bytes = 0
[workers]
networks = ["127.0.0.0/8"]
[[agents]]
name = "demo"
models = [
  {{ name = "choir-qwen", path = "demo:choir-qwen", slots = 4 }},
  {{ name = "choir-llama", path = "demo:choir-llama", slots = 4 }},
  {{ name = "begun", path = "{begun}", slots = 1 }},
]
[[agents]]
name = "attic"
on_demand = {{ memory_bytes = 500_000_000, slots = 1 }}
[[agents]]
name = "slow"
backend = "instant"
models = [{{ name = "slow", reply = "{words}", delay_ms = {slow_ms}, context_tokens = 32768 }}]
[[agents]]
name = "clerk"
backend = "instant"
models = [{{ name = "clerk", reply = '{notes}', context_tokens = 32768 }}]
[[agents]]
name = "caller"
backend = "openai"
models = [{{ name = "caller", server = {{ type = "openai", url = "http://127.0.0.1:{control}" }} }}]
"""
REPOSITORY = "choir/little-GGUF"
LITTLE = f"hf.co/{REPOSITORY}:Q8_0"
DEMO = frozenset(("choir-qwen", "choir-llama", "begun", "slow", "caller", "clerk"))
INSTANT = """
[broker]
port = 0
[gateway]
port = {gateway}
timeout_s = 10
[[agents]]
name = "quick"
backend = "instant"
models = [{{ name = "quick", reply = "Paris" }}, {{ name = "other", reply = "Paris" }}]
"""
"""A mesh of which nothing is asked but how it answers."""


@dataclass
class Shown:
    """What a client's script has to know: the gateway's address, and the control's. `begun` is the file of
    the model of that name, `limited_key` a key that may have next to nothing a minute."""

    address: str
    control: str
    begun: Path
    limited_key: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The same as its environment has it."""
        return {
            "CHOIR_ADDRESS": self.address,
            "CHOIR_CONTROL": self.control,
            "CHOIR_MODEL": "choir-qwen",
            "CHOIR_ENSEMBLE": "choir/majority@pair",
            "CHOIR_LIMITED_KEY": self.limited_key,
            "CHOIR_HUB_MODEL": LITTLE,
        }


@asynccontextmanager
async def shown_mesh(folder: Path, config: str = CONFIG) -> AsyncIterator[Shown]:
    """A mesh that runs with its state in `folder` until the context ends. CannotStart if it does not come
    up."""
    wanted = DEMO if config is CONFIG else frozenset(("quick", "other"))
    stores = "true" if config is CONFIG else "false"
    gateway, control = free_ports(2)
    path, begun = folder / "choir.toml", begun_model(folder)
    hubs = ExitStack()
    hub = hubs.enter_context(hub_server(REPOSITORY, {"little-Q8_0.gguf": little_model()}))
    path.write_text(
        config.format(
            gateway=gateway,
            control=control,
            words=WORDS,
            slow_ms=SLOW_MS,
            notes=NOTES,
            begun=begun,
            hub=hub.url,
        )
    )
    address = f"http://127.0.0.1:{gateway}"
    with (folder / "up.log").open("wb") as output:
        up = subprocess.Popen(  # noqa: ASYNC220  (it lives as long as the context)
            choir_command("up", "--config", str(path)),
            env=clean_environment(folder, CHOIR_GATEWAY__ENABLED="true", CHOIR_MODELSTORE__ENABLED=stores),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=PREEXEC,
        )
    serving = Control(folder, address).server(control)
    task = asyncio.create_task(serving.serve())
    try:
        await _until_there(up, address, wanted, folder / "up.log")
        key = await asyncio.to_thread(limited_key, folder)
        yield Shown(address, f"http://127.0.0.1:{control}", begun, key)
    finally:
        up.terminate()
        await asyncio.to_thread(up.wait, STOP_DEADLINE_S)
        serving.should_exit = True
        await task
        hubs.close()


def little_model() -> bytes:
    """What the hub has."""
    return (DEMO_MODELS / "choir-phi.gguf").read_bytes()


def limited_key(folder: Path) -> str:
    """A new key of the mesh, that may use a token a minute."""
    scopes = ("--scope", "models", "--scope", "generate")
    made = typed(folder, "keys", "add", *scopes, "--tokens-per-minute", "1", "--json")
    if made.returncode:
        raise CannotStart(f"no key was made: {made.stderr[-300:]}")
    return str(json.loads(made.stdout)["secret"])


def begun_model(folder: Path) -> Path:
    """A copy of a demo model whose texts begin with a token of their own.

    llama-cpp-python's server (0.3) tells the probabilities of a prompt's tokens one place too late where a
    model has none: with this one what it says can be compared.
    """
    copy = Path(shutil.copy(DEMO_MODELS / "choir-qwen.gguf", folder / "begun.gguf"))
    field = gguf.GGUFReader(copy, "r+").fields["tokenizer.ggml.add_bos_token"]
    field.parts[field.data[0]][0] = True
    return copy


async def _until_there(up: subprocess.Popen[bytes], address: str, wanted: frozenset[str], log: Path) -> None:
    end_s = time.monotonic() + UP_DEADLINE_S
    async with httpx.AsyncClient(timeout=5) as client:
        while time.monotonic() < end_s and up.poll() is None:
            if wanted <= await _models(client, address):
                return
            await asyncio.sleep(0.2)
    raise CannotStart(f"the mesh did not come up: {' '.join(last_lines(log, count=5).split())}")


async def _models(client: httpx.AsyncClient, address: str) -> set[str]:
    try:
        reply = await client.get(f"{address}/v1/models")
        return {str(model["id"]) for model in reply.json()["data"]}
    except (httpx.HTTPError, ValueError, KeyError):
        return set()


class Control:
    """Kills the gateway of the mesh whose state is in `folder`, and is the server behind `caller`."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address

    def server(self, port: int) -> uvicorn.Server:
        """The HTTP server."""
        routes = [
            Route("/restart", self.restart, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/chat/completions", call_a_tool, methods=["POST"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), host="127.0.0.1", port=port, log_level="error", lifespan="off"
        )
        return uvicorn.Server(config)

    async def restart(self, _request: Request) -> Response:
        """Kills the gateway; answers when another one does."""
        running = running_mesh(self._folder / "choir")
        assert running is not None
        old = await self._gateway(running.url)
        os.kill(old, signal.SIGKILL)
        async with asyncio.timeout(BACK_DEADLINE_S), httpx.AsyncClient(timeout=5) as client:
            while psutil.pid_exists(old) or not await _models(client, self._address):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return JSONResponse({"killed": old})

    async def _gateway(self, url: str) -> int:
        async with asyncio.timeout(BACK_DEADLINE_S), Choir(url) as choir:
            while True:
                try:
                    pids = [node.pid for node in await choir.nodes() if node.service == "gateway"]
                except ChoirError:
                    pids = []
                if (found := next(filter(psutil.pid_exists, pids), None)) is not None:
                    return found
                await asyncio.sleep(0.1)


async def models(_request: Request) -> Response:
    """The model that calls tools."""
    return JSONResponse({"object": "list", "data": [{"id": "caller", "object": "model"}]})


async def call_a_tool(request: Request) -> Response:
    """The first tool, for the first thing that it may be called for; without tools a text."""
    tools = (await request.json()).get("tools") or []
    delta: dict[str, object] = {"role": "assistant", "content": "" if tools else "There are no tools."}
    if tools:
        said = {"name": tools[0]["function"]["name"], "arguments": json.dumps({"city": "Paris"})}
        delta["tool_calls"] = [{"index": 0, "id": "call_1", "type": "function", "function": said}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "caller"}
    reason = "tool_calls" if tools else "stop"
    frames: list[dict[str, object]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        {**head, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}},
    ]
    body = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames) + "data: [DONE]\n\n"
    return Response(body, media_type="text/event-stream")
