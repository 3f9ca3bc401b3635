"""The mesh that `choir up` runs on this host: how it is found.

The state folder is `$XDG_STATE_HOME/choir`, by default `~/.local/state/choir`.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

STATE_VARIABLE = "XDG_STATE_HOME"
STATE_FILE = "mesh.json"


class RunningMesh(BaseModel):
    """The mesh that `choir up` runs on this host: whom to ask, and whom to stop.

    `health` are the addresses at which its processes say whether they are ready, if `[health] port` is set.
    `addresses` are those at which other hosts reach its broker. `nkey`, `ca` and `tls_first` are those of
    `[mesh]`: how a client on this host is let in, and what proves that it has come to the right broker.
    `joined` says that this host is a part of a mesh whose broker is elsewhere: people here join it for
    themselves.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    pid: int
    process_started_at_s: float
    config: Path | None = None
    health: tuple[str, ...] = ()
    nkey: str | None = None
    ca: str | None = None
    tls_first: bool | None = None
    joined: bool = False
    addresses: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether it still runs (and its process id has not been given to another process)."""
        import psutil  # only where a mesh is written down

        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.process_started_at_s and process.status() != "zombie"
        except psutil.NoSuchProcess:
            return False


def state_folder() -> Path:
    """The state folder of this user on this host."""
    home = os.environ.get(STATE_VARIABLE)
    return (Path(home) if home else Path.home() / ".local" / "state") / "choir"


def running_mesh(folder: Path | None = None) -> RunningMesh | None:
    """The mesh that runs from a state folder; None if there is none."""
    try:
        text = ((folder or state_folder()) / STATE_FILE).read_text()
        mesh = RunningMesh.model_validate_json(text)
    except (OSError, ValidationError):
        return None
    return mesh if mesh.alive else None
