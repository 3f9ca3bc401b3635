"""The state folder: the right to run the mesh of this host, and where other commands find it.

One mesh runs from one state folder; it holds the store of the embedded broker too, unless choir.toml puts
that elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from pathlib import Path
from typing import Any

import psutil

from infra.host.children.processes import until, writable_folder
from schemas.errors import ConfigurationError
from services.chassis.nats.connecting.address import without_password
from services.chassis.process.stopping import STOP_LIMIT_S
from services.client.finding.local_mesh import STATE_FILE, STATE_VARIABLE, RunningMesh, running_mesh

LOCK_FILE = "mesh.lock"
ID_FILE = "host-id"
ID_FORM = re.compile("[0-9a-f]{4}")
STOP_DEADLINE_S = STOP_LIMIT_S + 10.0
"""For the services, and then for the broker."""


class Claim:
    """The right to run a mesh from a state folder; it ends with the process at the latest."""

    def __init__(self, folder: Path) -> None:
        self.folder = writable_folder(folder, "the state folder")
        self._lock = os.open(self.folder / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise _already_running(self.folder) from error

    def publish(self, mesh: RunningMesh) -> None:
        """Tell the other commands on this host where the mesh is, and where its processes tell of health."""
        new = self.folder / f"{STATE_FILE}.new"
        new.write_text(mesh.model_dump_json(exclude_none=True, indent=2))
        new.chmod(0o600)
        new.replace(self.folder / STATE_FILE)

    def release(self) -> None:
        """The mesh runs no more. Does nothing the second time."""
        if self._lock >= 0:
            (self.folder / STATE_FILE).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


def running_here(url: str, **more: Any) -> RunningMesh:
    """The mesh at `url`, run by this process; `more` are the other fields of RunningMesh."""
    me = psutil.Process()
    return RunningMesh(url=url, pid=me.pid, process_started_at_s=me.create_time(), **more)


def _already_running(folder: Path) -> ConfigurationError:
    mesh = running_mesh(folder)
    where = "it is just starting" if mesh is None else f"at {without_password(mesh.url)}, process {mesh.pid}"
    return ConfigurationError(
        f"a mesh is already running from {folder} ({where}): `choir status` shows it, `choir down` stops it; "
        f"{STATE_VARIABLE} set to another folder runs a second one"
    )


def host_id(folder: Path) -> str:
    """Four characters that tell this part of the mesh from others on hosts of the same name.

    Made at the first start from a state folder, and kept there. ConfigurationError if that cannot be.
    """
    path = writable_folder(folder, "the state folder") / ID_FILE
    try:
        known = path.read_text().strip() if path.is_file() else ""
        if ID_FORM.fullmatch(known):
            return known
        made = secrets.token_hex(2)
        path.touch(0o600)
        path.write_text(f"{made}\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read or written: {error.strerror}") from error
    return made


async def stop_mesh(mesh: RunningMesh, deadline_s: float = STOP_DEADLINE_S) -> bool:
    """Ask a mesh to stop, and wait; False if it has not ended in time."""
    try:
        psutil.Process(mesh.pid).terminate()
    except psutil.NoSuchProcess:
        return True
    return await until(lambda: not mesh.alive, deadline_s)
