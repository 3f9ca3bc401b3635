"""`python -m llama_cpp.server` in a process of its own: an OpenAI-compatible server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.broker.local_cluster import free_port
from infra.host.children.processes import PREEXEC, last_lines

READY_DEADLINE_S = 180.0
STOP_DEADLINE_S = 10.0


@dataclass(frozen=True)
class LlamaServer:
    """A running server and its process."""

    url: str
    port: int
    process: subprocess.Popen[bytes]


@contextmanager
def llama_server(folder: Path, models: dict[str, Path], **settings: object) -> Iterator[LlamaServer]:
    """Serves GGUF files by name; which one is loaded changes with what is asked."""
    port = free_port()
    config = {
        "host": "127.0.0.1",
        "port": port,
        # By default a second request cuts off the stream of the first.
        "interrupt_requests": False,
        "models": [
            {"model": str(path), "model_alias": name, "n_threads": 1, "logits_all": True, **settings}
            for name, path in models.items()
        ],
    }
    (config_file := folder / "server.json").write_text(json.dumps(config))
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "llama_cpp.server", "--config_file", str(config_file)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=PREEXEC,
        )
    server = LlamaServer(f"http://127.0.0.1:{port}", port, process)
    try:
        _wait_until_ready(server, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(server: LlamaServer, log: Path) -> None:
    end_s = time.monotonic() + READY_DEADLINE_S
    while time.monotonic() < end_s and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/v1/models", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    pytest.fail(f"llama_cpp.server did not start:\n{last_lines(log)}")
