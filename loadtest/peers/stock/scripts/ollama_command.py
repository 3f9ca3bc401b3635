"""The `ollama` command, as people type it. `CHOIR_OLLAMA` is where it lies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

from harness import CITY, QUESTION, TOO_LONG, WORDS, Mesh, NotOffered, run

LONGEST_ARGUMENT = 100_000
"""The system takes no longer ones."""
OLLAMA = os.environ.get("CHOIR_OLLAMA", "ollama")


def typed(mesh: Mesh, *arguments: str, ends: int = 0, limit_s: float = 180) -> str:
    """What the command says."""
    done = subprocess.run(
        [OLLAMA, *arguments],
        env=environment(mesh),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
    )
    assert done.returncode == ends, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout if ends == 0 else done.stderr


def environment(mesh: Mesh) -> dict[str, str]:
    return {**os.environ, "OLLAMA_HOST": mesh.address, "TERM": "dumb"}


def begun(mesh: Mesh) -> subprocess.Popen[bytes]:
    """The command in the middle of a long text."""
    run_ = subprocess.Popen(
        [OLLAMA, "run", "--nowordwrap", mesh.slow, QUESTION],
        env=environment(mesh),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run_.stdout is not None
    assert run_.stdout.read(12)
    return run_


def plain(mesh: Mesh) -> str:
    assert f"{mesh.model}:latest" in typed(mesh, "list")
    assert mesh.model in typed(mesh, "ps")
    assert "context length" in typed(mesh, "show", mesh.model)
    assert typed(mesh, "run", mesh.ensemble, QUESTION).strip()
    typed(mesh, "stop", mesh.model)
    return typed(mesh, "run", mesh.model, QUESTION).strip()


def stream(mesh: Mesh) -> None:
    run_ = begun(mesh)
    time.sleep(0.5)
    assert run_.poll() is None, "the text came all at once"
    rest, _ = run_.communicate(timeout=180)
    assert " ".join(rest.decode().split()).endswith(WORDS[-40:])


def manage(mesh: Mesh) -> str:
    """An ensemble gets a name and loses it; what would change the models of a mesh is refused, and the
    command says why."""
    for name in (mesh.model, mesh.slow, mesh.ensemble):
        assert "context length" in typed(mesh, "show", name)
    typed(mesh, "pull", mesh.model)
    typed(mesh, "cp", mesh.ensemble, "council")
    assert "council:latest" in typed(mesh, "list")
    assert typed(mesh, "run", "council", QUESTION).strip()
    typed(mesh, "rm", "council")
    assert "not found" in typed(mesh, "show", "council", ends=1)
    refused = {
        "pull": typed(mesh, "pull", "nobody", ends=1),
        "cp": typed(mesh, "cp", mesh.model, "other", ends=1),
        "rm": typed(mesh, "rm", mesh.model, ends=1),
        "push": typed(mesh, "push", mesh.model, ends=1),
    }
    for command, why in refused.items():
        assert "choir.toml" in why, (command, why)
    assert f"{mesh.model}:latest" in typed(mesh, "list")
    return refused["cp"].strip()[-160:]


def hub(mesh: Mesh) -> str:
    """A model of a hub is pulled by `run`, asked by its name there, unloaded, and its last copy stays."""
    said = typed(mesh, "run", mesh.hub_model, QUESTION)
    assert said.strip()
    typed(mesh, "pull", mesh.hub_model)
    assert "context length" in typed(mesh, "show", mesh.hub_model)
    assert "little-Q8_0" in typed(mesh, "list")
    typed(mesh, "stop", mesh.hub_model)
    typed(mesh, "pull", f"{mesh.hub_model.partition(':')[0]}:Q2_K", ends=1)
    return f"{said.strip()}; {typed(mesh, 'rm', mesh.hub_model, ends=1).strip()[-160:]}"


def tools(_mesh: Mesh) -> None:
    raise NotOffered("the command has no tools of its own")


def schema(mesh: Mesh) -> str:
    text = typed(mesh, "run", mesh.model, "Say a city as JSON.", "--format", json.dumps(CITY))
    assert json.loads(text)["city"] in ("Lima", "Paris"), text
    return text.strip()[:80]


def embeddings(mesh: Mesh) -> None:
    raise NotOffered("only of models that can do nothing else")


def unknown(mesh: Mesh) -> str:
    for command in ("show", "stop", "rm"):
        assert "nobody" in typed(mesh, command, "nobody", ends=1)
    return typed(mesh, "run", "nobody", QUESTION, ends=1).strip()[-160:]


def hang_up(mesh: Mesh) -> None:
    with mesh.left():
        run_ = begun(mesh)
        run_.send_signal(signal.SIGINT)
        run_.communicate(timeout=180)


def restart(mesh: Mesh) -> str:
    run_ = begun(mesh)
    mesh.restart()
    said, told = run_.communicate(timeout=180)
    assert not " ".join(said.decode().split()).endswith(WORDS[-40:])
    text = mesh.asked_again(lambda: typed(mesh, "run", "--nowordwrap", mesh.slow, QUESTION))
    assert " ".join(text.split()) == WORDS
    return f"exit {run_.returncode}: {told.decode().strip()[-80:]}"


def oversize(mesh: Mesh) -> str:
    said = typed(mesh, "run", mesh.model, TOO_LONG[:LONGEST_ARGUMENT], ends=1)
    assert "tokens" in said and "context" in said, said
    return said.strip()[-160:]


def limited(_mesh: Mesh) -> None:
    raise NotOffered("the command sends no key")


said = subprocess.run([OLLAMA, "--version"], capture_output=True, text=True).stdout
VERSION = os.environ.get("CHOIR_OLLAMA_VERSION") or said.split()[-1]
TALK = (plain, stream, tools, schema, embeddings, unknown, hang_up, restart, oversize, limited)
run("ollama", VERSION, *TALK, manage, hub)
