"""Open WebUI itself, started as its users start it, with all kinds of connection to the gateway: Ollama's,
OpenAI's with chat completions, and OpenAI's with responses."""

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
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness import ASKED, CITY, TOO_LONG, WORDS, Mesh, cut, must_fail, run

READY_DEADLINE_S = 240.0
CHAT_DEADLINE_S = 240.0
RESPONSES = "responses"
"""What stands before the names of models whose connection is of that kind."""
TITLE, TAGS, FOLLOW_UPS = "A Big City", ["Geography"], ["And of Peru?"]
"""What the mesh's task model says."""


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
            "OPENAI_API_BASE_URLS": f"{Mesh.address}/v1;{Mesh.address}/v1",
            "OPENAI_API_KEYS": "any;any",
            "OPENAI_API_CONFIGS": json.dumps({"1": {"api_type": "responses", "prefix_id": RESPONSES}}),
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
                if part.get("error") or part.get("type") == "response.failed":
                    raise RuntimeError(str(part))
                if "type" in part:
                    done = done or part["type"] == "response.completed"
                    yield part["delta"] if part["type"] == "response.output_text.delta" else ""
                    continue
                done = done or bool(part.get("done"))
                choices = part.get("choices") or [{"delta": part.get("message", {})}]
                done = done or bool(choices[0].get("finish_reason"))
                yield choices[0]["delta"].get("content") or ""
        if not done:
            raise ConnectionError("the stream broke off")

    def chatted(self, model: str) -> dict[str, Any]:
        """A new chat, as its page begins one; returns it when all that the page asks for is there."""
        asked, answered = str(uuid.uuid4()), str(uuid.uuid4())
        question = {"id": asked, "parentId": None, "childrenIds": [answered], **ASKED[0], "models": [model]}
        body = {
            "model": model,
            "messages": ASKED,
            "stream": True,
            "params": {"function_calling": "legacy", "temperature": 0, "max_tokens": 48},
            "parent_id": None,
            "user_message": question,
            "id": answered,
            "session_id": "any",
            "background_tasks": {
                "title_generation": True,
                "tags_generation": True,
                "follow_up_generation": True,
            },
        }
        chat_id = self.ask(CHAT, body)["chat_id"]
        end_s = time.monotonic() + CHAT_DEADLINE_S
        while True:
            chat = self.ask(f"/api/v1/chats/{chat_id}")
            answer = chat["chat"]["history"]["messages"][answered]
            if answer.get("error"):
                raise RuntimeError(str(answer["error"]))
            told = {
                "title": chat["title"],
                "tags": [tag["name"] for tag in self.ask(f"/api/v1/chats/{chat_id}/tags")],
                "follow_ups": answer.get("followUps"),
                "text": answer.get("content") if answer.get("done") else None,
            }
            if all(told.values()) and told["title"] != "New Chat":
                return told
            assert time.monotonic() < end_s, f"the chat stays unfinished: {told}"
            time.sleep(0.2)


ui = OpenWebUI()
CHAT = "/api/chat/completions"
GREEDY = {"temperature": 0, "max_tokens": 48}


def ways(model: str) -> tuple[str, str, str]:
    """A model's names, by each kind of connection."""
    return f"{model}:latest", model, f"{RESPONSES}.{model}"


def plain(mesh: Mesh) -> str:
    names = {model["id"] for model in ui.ask("/api/models")["data"]}
    tagged = f"{mesh.model}:latest"
    assert set(ways(mesh.model)) <= names, names
    assert ui.ask("/ollama/api/version")["version"]
    for model in (*ways(mesh.model), *ways(mesh.ensemble)):
        reply = ui.ask(CHAT, {"model": model, "messages": ASKED, "stream": False, **GREEDY})
        assert reply["choices"][0]["message"]["content"], (model, reply)
    direct = ui.ask("/ollama/api/chat", {"model": tagged, "messages": ASKED, "stream": False})
    assert direct["message"]["content"]
    return reply["choices"][0]["message"]["content"]


def stream(mesh: Mesh) -> None:
    for model in ways(mesh.slow):
        assert "".join(ui.streamed(CHAT, {"model": model, "messages": ASKED})) == WORDS, model


def tools(mesh: Mesh) -> None:
    weather = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
    for model in ways(mesh.caller):
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
    for model in ways(mesh.slow):
        with mesh.left():
            reply = ui.opened(CHAT, {"model": model, "messages": ASKED, "stream": True})
            reply.read(40)
            reply.close()


def restart(mesh: Mesh) -> str:
    seen = []
    for model in ways(mesh.slow):
        body = {"model": model, "messages": ASKED}
        seen.append(cut(ui.streamed(CHAT, body), mesh))
        assert mesh.asked_again(lambda body=body: "".join(ui.streamed(CHAT, body))) == WORDS
    return ", ".join(seen)


def oversize(mesh: Mesh) -> str:
    long = [{"role": "user", "content": TOO_LONG}]
    for model in ways(mesh.model):
        body = {"model": model, "messages": long, "stream": False}
        said = must_fail(lambda body=body: ui.ask(CHAT, body), "tokens", "context")
    return said


def titles(mesh: Mesh) -> str:
    """Titles, tags and further questions are asked of the chat's own model; of an ensemble's the mesh has its
    task model write them."""
    for model in ways(mesh.ensemble):
        chat = ui.chatted(model)
        assert (chat["title"], chat["tags"], chat["follow_ups"]) == (TITLE, TAGS, FOLLOW_UPS), chat
        assert TITLE not in chat["text"], chat
    return chat["text"]


CLIENT = "open-webui"
TALK = (plain, stream, tools, schema, embeddings, unknown, hang_up, restart, oversize, titles)
ONE_KEY = "Open WebUI has one key for all who use it: `limited` would hold up the other scenarios"
try:
    ui.start()
    run(CLIENT, version(CLIENT), *TALK, missing=ONE_KEY)
finally:
    ui.stop()
