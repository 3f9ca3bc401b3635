"""Environments of peers: a Python of its own for each, since their requirements exclude one another."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

INSTALL_DEADLINE_S = 1_800.0
MADE = "made"


class CannotStart(Exception):
    """Raised when a peer cannot be installed or started; says why, in one line."""


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The folder of an environment with these requirements, made if it is not there.

    Packages are as they are shipped, without the settings that this project builds its own with. CannotStart
    if uv or a package is not to be had.
    """
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
    folder = peers_folder() / f"{name}-{digest}"
    if not (folder / MADE).exists():
        uv = shutil.which("uv")
        if uv is None:
            raise CannotStart("uv is not on the path: it installs the peers")
        run([uv, "venv", "--quiet", "--clear", str(folder)])
        # In that folder: elsewhere uv would build with the settings of the project that it finds above.
        run([uv, "pip", "install", "--quiet", "--python", str(folder), *requirements], folder)
        (folder / MADE).touch()
    return folder


def peers_folder() -> Path:
    """Where what is installed and built of peers is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "choir" / "peers"


def version_in(folder: Path, package: str) -> str:
    """The version of a package in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return run([str(folder / "bin" / "python"), "-c", code]).strip()


def run(
    command: Sequence[str],
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    deadline_s: float = INSTALL_DEADLINE_S,
) -> str:
    """What a command writes that installs or builds a peer, run in `folder`. CannotStart if it fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=True,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=env,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise CannotStart(said[-1] if said else f"{command[0]} ended with {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise CannotStart(f"its installation took longer than {deadline_s:g} s") from error
    return done.stdout
