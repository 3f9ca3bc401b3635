"""Ollama's own server and the gateway: the same requests, and what needs no model runner answered alike."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from infra.broker.local_cluster import free_port
from infra.demo_models.checksums import model_path
from loadtest.peers.stock.catalogue import ollama_command
from loadtest.peers.stock.mesh import shown_mesh

MODEL = "choir-qwen"
TALK = [{"role": "user", "content": "x"}]
READY_DEADLINE_S = 180.0
ASKED: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/", None),
    ("HEAD", "/", None),
    ("GET", "/api/version", None),
    ("HEAD", "/api/version", None),
    ("GET", "/api/tags", None),
    ("HEAD", "/api/tags", None),
    ("GET", "/api/ps", None),
    ("POST", "/api/show", {"model": MODEL}),
    ("POST", "/api/show", {"name": f"{MODEL}:latest"}),
    ("GET", "/v1/models", None),
    ("GET", f"/v1/models/{MODEL}", None),
    ("POST", "/api/show", {"model": "nobody"}),
    ("POST", "/api/show", {}),
    ("POST", "/api/chat", {"model": "nobody", "messages": TALK}),
    ("POST", "/api/chat", {"model": "nobody", "messages": TALK, "stream": False}),
    ("POST", "/api/generate", {"model": "nobody", "prompt": "x"}),
    ("POST", "/api/embed", {"model": "nobody", "input": "x"}),
    ("POST", "/api/embeddings", {"model": "nobody", "prompt": "x"}),
    ("POST", "/api/chat", {}),
    ("POST", "/api/chat", {"model": 1}),
    ("POST", "/v1/chat/completions", {"model": "nobody", "messages": TALK}),
    ("GET", "/v1/models/nobody", None),
]
NOT_HAD = {"tensors"}
"""The names of a file's tensors: the mesh has the file on other hosts."""


@asynccontextmanager
async def ollama_serve(folder: Path) -> AsyncIterator[str]:
    """The address of Ollama's own server, with a demo model and its state in `folder`."""
    command = ollama_command()
    assert command is not None
    address = f"http://127.0.0.1:{free_port()}"
    own = {"HOME": str(folder), "OLLAMA_MODELS": str(folder / "models"), "PATH": os.environ["PATH"]}
    with (folder / "ollama.log").open("wb") as log:
        process = subprocess.Popen(
            [command, "serve"], env={**own, "OLLAMA_HOST": address}, stdout=log, stderr=log
        )
    try:
        async with httpx.AsyncClient(base_url=address, timeout=READY_DEADLINE_S) as client:
            async with asyncio.timeout(READY_DEADLINE_S):
                while not await _answers(client):  # noqa: ASYNC110  (the server is asked)
                    await asyncio.sleep(0.1)
            data = model_path(MODEL).read_bytes()
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            assert (await client.post(f"/api/blobs/{digest}", content=data)).status_code == 201
            made = {"model": MODEL, "files": {"model.gguf": digest}, "stream": False}
            assert (await client.post("/api/create", json=made)).json() == {"status": "success"}
        yield address
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/")).status_code == 200
    except httpx.HTTPError:
        return False


def lacking(theirs: Any, ours: Any, place: str = "") -> list[str]:
    """What of the one reply the other does not have, or has as something else."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if place.endswith("model_info"):
            return []  # what is in it depends on the model's file
        missing = [f"{place}.{name}" for name in theirs.keys() - ours.keys() - NOT_HAD]
        shared = theirs.keys() & ours.keys()
        return missing + [
            found for name in shared for found in lacking(theirs[name], ours[name], f"{place}.{name}")
        ]
    if isinstance(theirs, list) and isinstance(ours, list):
        return lacking(theirs[0], ours[0], f"{place}.0") if theirs and ours else []
    return [] if theirs is None or type(theirs) is type(ours) else [f"{place}: {theirs!r} is here {ours!r}"]


def told(reply: httpx.Response) -> Any:
    if reply.headers["content-type"].startswith("application/json") and reply.content:
        return reply.json()
    return reply.text


async def with_its_library(address: str) -> dict[str, Any]:
    """What Ollama's own library makes of the replies: names, and errors as (status, text)."""
    client = ollama.AsyncClient(address)
    found: dict[str, Any] = {
        "listed": any(m.model == f"{MODEL}:latest" for m in (await client.list()).models)
    }
    found["shown"] = bool((await client.show(MODEL)).modelinfo)
    for name, ask in (
        ("show", lambda: client.show("nobody")),
        ("chat", lambda: client.chat("nobody", TALK)),
        ("generate", lambda: client.generate("nobody", "x")),
        ("embed", lambda: client.embed("nobody", "x")),
    ):
        with pytest.raises(ollama.ResponseError) as refused:
            await ask()
        found[name] = (
            refused.value.status_code,
            "nobody" in refused.value.error,
            "not found" in refused.value.error,
        )
    return found


@pytest.mark.soak
@pytest.mark.skipif(ollama_command() is None, reason="needs `ollama`: see `just clients ollama`")
async def test_the_gateway_answers_as_ollamas_own_server_does(tmp_path: Path) -> None:
    async with ollama_serve(tmp_path) as original, shown_mesh(tmp_path) as mesh:
        async with httpx.AsyncClient(timeout=READY_DEADLINE_S) as client:
            different: list[tuple[Any, ...]] = []
            for method, path, body in ASKED:
                theirs, ours = [
                    await client.request(method, address + path, json=body)
                    for address in (original, mesh.address)
                ]
                kinds = [reply.headers["content-type"].partition(";")[0] for reply in (theirs, ours)]
                if (theirs.status_code, kinds[0]) != (ours.status_code, kinds[1]):
                    different.append((method, path, body, theirs.status_code, ours.status_code, kinds))
                elif lack := lacking(told(theirs), told(ours)):
                    different.append((method, path, body, lack))
        assert not different
        assert await with_its_library(original) == await with_its_library(mesh.address)
