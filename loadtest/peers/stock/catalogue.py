"""The clients: how each is installed, and which script asks with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.peers.environments import CannotStart, environment

SCRIPTS = Path(__file__).parent / "scripts"
OLLAMA_MODULE = "github.com/ollama/ollama"
OLLAMA_VERSION = "v0.6.5"
"""The module of each later one up to 0.17 lacks the headers that lie in folders called `vendor`."""
INSTALL_DEADLINE_S = 1_200.0

Installed = tuple[list[str], dict[str, str]]
"""The command that runs a script, and what it finds in its environment."""


@dataclass(frozen=True)
class Client:
    """A client: the script that asks with it, and how it is installed. `needs` says that in words."""

    script: str
    install: Callable[[], Installed] = field(repr=False)
    needs: str


def _python(*packages: str, **told: str) -> Callable[[], Installed]:
    def install() -> Installed:
        folder = environment(packages[0].partition("[")[0], packages)
        return [str(folder / "bin" / "python")], told

    return install


def _node(script: str, *packages: str) -> Callable[[], Installed]:
    def install() -> Installed:
        npm, node = shutil.which("npm"), shutil.which("node")
        if npm is None or node is None:
            raise CannotStart("node and npm are not on the path")
        folder = cache() / ("node-" + packages[0].replace("/", "-").strip("@"))
        if not (folder / "made").exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "package.json").write_text(json.dumps({"private": True}))
            _run([npm, "install", "--silent", "--no-audit", "--no-fund", *packages], folder)
            (folder / "made").touch()
        command = node if script.endswith(".mjs") else python3()
        return [command], {"CHOIR_NODE_MODULES": str(folder / "node_modules")}

    return install


def ollama_command() -> str | None:
    """Where the `ollama` command is: on the path, or built before. None if it is not here."""
    return shutil.which("ollama") or shutil.which("ollama", path=str(cache() / "go" / "bin"))


def _ollama() -> Installed:
    found = ollama_command()
    if found is None:
        go = shutil.which("go")
        if go is None:
            raise CannotStart("neither ollama nor go, which builds it, is on the path")
        home = cache() / "go"
        home.mkdir(parents=True, exist_ok=True)
        _run([go, "install", f"{OLLAMA_MODULE}@{OLLAMA_VERSION}"], home, GOBIN=str(home / "bin"))
        found = str(home / "bin" / "ollama")
    told = {"CHOIR_OLLAMA": found}
    if shutil.which("go") is not None:
        stated = _run(["go", "version", "-m", found], SCRIPTS).splitlines()
        lines = [line.split() for line in stated]
        versions = [line[2] for line in lines if line[:2] == ["mod", OLLAMA_MODULE]]
        told["CHOIR_OLLAMA_VERSION"] = next(iter(versions), "unknown")
    return [python3()], told


def python3() -> str:
    """A Python for scripts that need no package."""
    found = shutil.which("python3")
    if found is None:
        raise CannotStart("python3 is not on the path")
    return found


def cache() -> Path:
    """Where clients that are no Python packages lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "choir" / "peers"


def _run(command: list[str], folder: Path, **more: str) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            timeout=INSTALL_DEADLINE_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise CannotStart(said[-1] if said else f"{command[0]} ended with {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise CannotStart(f"its installation took longer than {INSTALL_DEADLINE_S:g} s") from error
    return done.stdout


LANGCHAIN = "langchain_python.py"
CLIENTS: dict[str, Client] = {
    "ollama-python": Client("ollama_python.py", _python("ollama"), "uv"),
    "ollama-js": Client("ollama_js.mjs", _node("ollama_js.mjs", "ollama"), "node and npm"),
    "ollama": Client(
        "ollama_command.py",
        _ollama,
        f"ollama, or go and a C++ compiler, which build {OLLAMA_VERSION}",
    ),
    "openai-python": Client("openai_python.py", _python("openai"), "uv"),
    "anthropic": Client("anthropic_python.py", _python("anthropic"), "uv"),
    "langchain-ollama": Client(LANGCHAIN, _python("langchain-ollama", CHOIR_CLIENT="langchain-ollama"), "uv"),
    "langchain-openai": Client(LANGCHAIN, _python("langchain-openai", CHOIR_CLIENT="langchain-openai"), "uv"),
    "llama-index": Client(
        "llama_index_python.py",
        _python(
            "llama-index-core",
            "llama-index-llms-ollama",
            "llama-index-llms-openai-like",
            "llama-index-embeddings-ollama",
            "llama-index-embeddings-openai-like",
        ),
        "uv",
    ),
    "lm-eval": Client("lm_evaluation.py", _python("lm-eval[api]"), "uv"),
    "aider": Client("aider_command.py", _python("aider-chat"), "uv"),
    "open-webui": Client("open_webui_server.py", _python("open-webui"), "uv, and 5 GB of disk"),
    "continue": Client("continue_cli.py", _node("continue_cli.py", "@continuedev/cli"), "node and npm"),
}
