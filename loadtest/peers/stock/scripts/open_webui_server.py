"""Open WebUI itself, started as its users start it, with both kinds of connection to the gateway."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness import ASKED, CITY, TOO_LONG, WORDS, Mesh, cut, must_fail, run

READY_DEADLINE_S = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OpenWebUI:
    """One server, and a session with it."""

    def __init__(self) -> None:
        folder, port = tempfile.mkdtemp(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = Path(folder) / "log"
        told = {
            "DATA_DIR": folder,
            "HOME": folder,
            "WEBUI_AUTH": "False",
            "WEBUI_SECRET_KEY": "any",
            "OLLAMA_BASE_URL": Mesh.address,
            "OPENAI_API_BASE_URL": f"{Mesh.address}/v1",
            "OPENAI_API_KEY": "any",
            "OFFLINE_MODE": "true",
            "HF_HUB_OFFLINE": "1",
            "RAG_EMBEDDING_ENGINE": "ollama",
            "RAG_EMBEDDING_MODEL": Mesh.model,
            "RAG_OLLAMA_BASE_URL": Mesh.address,
            "ANONYMIZED_TELEMETRY": "False",
        }
        command = [
            str(Path(sys.executable).parent / "open-webui"),
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **told},
                cwd=folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.token = ""

    def start(self) -> None:
        end_s = time.monotonic() + READY_DEADLINE_S
        while True:
            try:
                self.ask("/health")
                break
            except (OSError, urllib.error.URLError):
                assert self.process.poll() is None and time.monotonic() < end_s, self.log.read_text()[-2000:]
                time.sleep(0.5)
        self.token = self.ask("/api/v1/auths/signin", {"email": "", "password": ""})["token"]

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def opened(self, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        try:
            return urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=120)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{error.code} {error.read().decode()}") from error

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        with self.opened(path, body) as reply:
            return json.loads(reply.read())

    def streamed(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        """The pieces of a text; a stream that ends before its end is an error."""
        done = False
        with self.opened(path, {**body, "stream": True}) as reply:
            for line in reply:
                data = line.removeprefix(b"data:").strip()
                if not line.startswith(b"data:"):
                    continue
                if data == b"[DONE]":
                    done = True
                    continue
                part = json.loads(data)
                if part.get("error"):
                    raise RuntimeError(str(part["error"]))
                done = done or bool(part.get("done"))
                choices = part.get("choices") or [{"delta": part.get("message", {})}]
                done = done or bool(choices[0].get("finish_reason"))
                yield choices[0]["delta"].get("content") or ""
        if not done:
            raise ConnectionError("the stream broke off")


ui = OpenWebUI()
CHAT = "/api/chat/completions"
GREEDY = {"temperature": 0, "max_tokens": 48}


def plain(mesh: Mesh) -> str:
    names = {model["id"] for model in ui.ask("/api/models")["data"]}
    tagged = f"{mesh.model}:latest"
    assert {tagged, mesh.model} <= names, names
    assert ui.ask("/ollama/api/version")["version"]
    for model in (tagged, mesh.model, f"{mesh.ensemble}:latest"):
        reply = ui.ask(CHAT, {"model": model, "messages": ASKED, "stream": False, **GREEDY})
        assert reply["choices"][0]["message"]["content"], (model, reply)
    direct = ui.ask("/ollama/api/chat", {"model": tagged, "messages": ASKED, "stream": False})
    assert direct["message"]["content"]
    return reply["choices"][0]["message"]["content"]


def stream(mesh: Mesh) -> None:
    for model in (f"{mesh.slow}:latest", mesh.slow):
        assert "".join(ui.streamed(CHAT, {"model": model, "messages": ASKED})) == WORDS, model


def tools(mesh: Mesh) -> None:
    weather = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
    for model in (f"{mesh.caller}:latest", mesh.caller):
        body = {"model": model, "messages": ASKED, "tools": [weather], "stream": False}
        (call,) = ui.ask(CHAT, body)["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "weather", call


def schema(mesh: Mesh) -> str:
    formed = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    body = {"model": mesh.model, "messages": ASKED, "stream": False, "response_format": formed, **GREEDY}
    text = ui.ask(CHAT, body)["choices"][0]["message"]["content"]
    assert json.loads(text)["city"] in ("Lima", "Paris"), text
    return text


def embeddings(mesh: Mesh) -> None:
    made = ui.ask("/ollama/api/embed", {"model": f"{mesh.model}:latest", "input": ["one", "two"]})
    assert len(made["embeddings"]) == 2
    assert len(ui.ask("/api/embeddings", {"model": mesh.model, "input": ["one", "two"]})["data"]) == 2


def unknown(mesh: Mesh) -> str:
    must_fail(lambda: ui.ask("/ollama/api/chat", {"model": "nobody", "messages": ASKED}), "40")
    return must_fail(lambda: ui.ask(CHAT, {"model": "nobody", "messages": ASKED}), "not found")


def hang_up(mesh: Mesh) -> None:
    for model in (f"{mesh.slow}:latest", mesh.slow):
        with mesh.left():
            reply = ui.opened(CHAT, {"model": model, "messages": ASKED, "stream": True})
            reply.read(40)
            reply.close()


def restart(mesh: Mesh) -> str:
    seen = []
    for model in (f"{mesh.slow}:latest", mesh.slow):
        body = {"model": model, "messages": ASKED}
        seen.append(cut(ui.streamed(CHAT, body), mesh))
        assert mesh.asked_again(lambda body=body: "".join(ui.streamed(CHAT, body))) == WORDS
    return ", ".join(seen)


def oversize(mesh: Mesh) -> str:
    long = [{"role": "user", "content": TOO_LONG}]
    for model in (f"{mesh.model}:latest", mesh.model):
        body = {"model": model, "messages": long, "stream": False}
        said = must_fail(lambda body=body: ui.ask(CHAT, body), "tokens", "context")
    return said


CLIENT = "open-webui"
TALK = (plain, stream, tools, schema, embeddings, unknown, hang_up, restart, oversize)
ONE_KEY = "Open WebUI has one key for all who use it: `limited` would hold up the other scenarios"
try:
    ui.start()
    run(CLIENT, version(CLIENT), *TALK, missing=ONE_KEY)
finally:
    ui.stop()
