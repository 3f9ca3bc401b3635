"""Continue's command line, by Ollama's and by OpenAI's interface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from harness import QUESTION, TOO_LONG, WORDS, Mesh, run

MODULES = Path(os.environ["CHOIR_NODE_MODULES"])
LONGEST_ARGUMENT = 100_000
"""The system takes no longer ones."""
PROVIDERS = ("openai", "ollama")
CN = str(MODULES / ".bin" / "cn")
VERSION = json.loads((MODULES / "@continuedev" / "cli" / "package.json").read_text())["version"]


def command(mesh: Mesh, provider: str, model: str, question: str = QUESTION) -> subprocess.Popen[str]:
    base = mesh.address if provider == "ollama" else f"{mesh.address}/v1"
    one = {
        "name": model,
        "provider": provider,
        "model": model,
        "apiBase": base,
        "apiKey": "any",
        "roles": ["chat"],
    }
    config = {"name": "choir", "version": "1.0.0", "schema": "v1", "models": [one]}
    home = tempfile.mkdtemp()
    path = Path(home) / "config.yaml"
    path.write_text(json.dumps(config))
    return subprocess.Popen(
        [CN, "--config", str(path), "--exclude", "*", "-p", question],
        env={**os.environ, "HOME": home, "CONTINUE_GLOBAL_DIR": home, "CONTINUE_TELEMETRY_ENABLED": "0"},
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def said(mesh: Mesh, provider: str, model: str, **told: str) -> str:
    going = command(mesh, provider, model, **told)
    try:
        text, _ = going.communicate(timeout=120)
    finally:
        end(going)
    return " ".join(text.split())


def end(going: subprocess.Popen[str]) -> None:
    if going.poll() is None:
        os.killpg(going.pid, signal.SIGKILL)
        going.wait()


def stream(mesh: Mesh) -> None:
    for provider in PROVIDERS:
        text = said(mesh, provider, mesh.slow)
        assert WORDS in text, (provider, text)


def unknown(mesh: Mesh) -> str:
    for provider in PROVIDERS:
        text = said(mesh, provider, "nobody")
        assert "nobody" in text and "not found" in text, (provider, text)
    return text[:160]


def connected(mesh: Mesh) -> bool:
    """Whether somebody has a connection to the gateway (it says nothing before a text is whole)."""
    port = f":{int(mesh.address.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(port) and row[3] == "01" for row in rows)


def begun(mesh: Mesh, provider: str) -> subprocess.Popen[str]:
    going = command(mesh, provider, mesh.slow)
    end_s = time.monotonic() + 60
    while not connected(mesh):
        assert time.monotonic() < end_s and going.poll() is None, "it asked nothing"
        time.sleep(0.05)
    time.sleep(1)
    return going


def hang_up(mesh: Mesh) -> None:
    for provider in PROVIDERS:
        with mesh.left(provider):
            end(begun(mesh, provider))


def restart(mesh: Mesh) -> str:
    told = []
    for provider in PROVIDERS:
        going = begun(mesh, provider)
        mesh.restart()
        try:
            text, _ = going.communicate(timeout=180)
        finally:
            end(going)
        assert WORDS in said(mesh, provider, mesh.slow), provider
        told.append(f"{provider}: exit {going.returncode}: {' '.join(text.split())[-100:]}")
    return ", ".join(told)


def oversize(mesh: Mesh) -> str:
    for provider in PROVIDERS:
        text = said(mesh, provider, mesh.model, question=TOO_LONG[:LONGEST_ARGUMENT])
        assert "context" in text, (provider, text[-600:])
    return text[-160:]


MISSING = {
    "plain": "its command line streams each text",
    "tools": "its command line has tools of its own, which run on the host: none is given to models here",
    "schema": "its command line asks for no forms",
    "limited": "its command line waits and asks again by itself, until it is let in: nothing is told",
    "embeddings": "its command line asks for no vectors",
}
run(
    "continue",
    VERSION,
    stream,
    unknown,
    hang_up,
    restart,
    oversize,
    missing=MISSING,
)
