"""aider, as people type it, by Ollama's and by OpenAI's interface."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from harness import TOO_LONG, WORDS, Mesh, run, unheard

LONGEST_ARGUMENT = 100_000
"""The system takes no longer ones."""
AIDER = str(Path(sys.executable).parent / "aider")
QUIET = [
    "--no-git",
    "--yes-always",
    "--no-check-update",
    "--no-analytics",
    "--no-show-model-warnings",
    "--no-show-release-notes",
    "--no-pretty",
    "--no-fancy-input",
    "--no-suggest-shell-commands",
    "--chat-mode=ask",
    "--map-tokens=0",
]


def command(mesh: Mesh, model: str, *more: str) -> subprocess.Popen[str]:
    folder = tempfile.mkdtemp()
    return subprocess.Popen(
        [AIDER, *QUIET, "--model", model, "--weak-model", model, "--message", unheard(), *more],
        env={
            **os.environ,
            "HOME": folder,
            "OLLAMA_API_BASE": mesh.address,
            "OPENAI_API_BASE": f"{mesh.address}/v1",
            "OPENAI_API_KEY": "any",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "PYTHONUNBUFFERED": "1",
        },
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def typed(mesh: Mesh, model: str, *more: str) -> str:
    said, _ = command(mesh, model, *more).communicate(timeout=600)
    return said


def dialects(name: str) -> tuple[str, str]:
    return f"ollama_chat/{name}", f"openai/{name}"


def plain(mesh: Mesh) -> None:
    for model in dialects(mesh.slow):
        assert WORDS[-60:] in " ".join(typed(mesh, model, "--no-stream").split()), model
    said = typed(mesh, dialects(mesh.model)[0], "--no-stream")
    assert "Tokens:" in said, said


def stream(mesh: Mesh) -> None:
    for model in dialects(mesh.slow):
        assert WORDS[-60:] in " ".join(typed(mesh, model, "--stream").split()), model


def unknown(mesh: Mesh) -> str:
    for model in dialects("nobody"):
        said = typed(mesh, model)
        assert "'nobody' not found" in " ".join(said.split()), said
    return said.strip()[-160:]


def begun(mesh: Mesh, model: str) -> subprocess.Popen[str]:
    going = command(mesh, model, "--stream")
    assert going.stdout is not None
    while "word" not in (line := going.stdout.read(8)):
        assert line, "it ended"
    return going


def hang_up(mesh: Mesh) -> None:
    for model in dialects(mesh.slow):
        with mesh.left():
            going = begun(mesh, model)
            going.send_signal(signal.SIGKILL)
            going.communicate(timeout=30)


def restart(mesh: Mesh) -> None:
    for model in dialects(mesh.slow):
        going = begun(mesh, model)
        mesh.restart()
        said, _ = going.communicate(timeout=600)
        if WORDS[-60:] not in " ".join(said.split()):
            assert "rror" in said, said
        assert WORDS[-60:] in " ".join(typed(mesh, model, "--no-stream").split())


def oversize(mesh: Mesh) -> str:
    for model in dialects(mesh.model):
        said = " ".join(typed(mesh, model, "--no-stream", "--message", TOO_LONG[:LONGEST_ARGUMENT]).split())
        assert "context" in said and "tokens" in said, said[-600:]
    return said[-160:]


MISSING = {
    "tools": "aider changes files by what models write, and declares no tools",
    "schema": "aider asks for no forms",
    "limited": "aider waits and asks again by itself",
    "embeddings": "aider asks for no vectors",
}
run(
    "aider",
    version("aider-chat"),
    plain,
    stream,
    unknown,
    hang_up,
    restart,
    oversize,
    missing=MISSING,
)
