"""The mesh that a person or a host has joined: where it is, who they are there, and how they know it.

A person's lies in the configuration folder (`$XDG_CONFIG_HOME/choir`, by default `~/.config/choir`), a
host's in its state folder. Both are written by `choir join`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from services.chassis.settings import MeshSection

CONFIG_HOME_VARIABLE = "XDG_CONFIG_HOME"
FILE = "joined.json"
CLUSTER_FILE = "cluster.json"
"""What a host keeps of its cluster that runs one of its brokers (`choir join` with the line of a broker)."""


class Membership(BaseModel):
    """`name` is the tenant of a person, or of the host; `nkey` and `ca` are files, `ca` None where the system
    knows the broker's authority. `services` are those that a host may run. `invite` is the public key of the
    line by which it came."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["host", "person"]
    name: str
    url: str
    nkey: str
    ca: str | None = None
    role: str = "ask"
    services: tuple[str, ...] = ()
    invite: str | None = None

    @property
    def section(self) -> MeshSection:
        """How to connect."""
        return MeshSection(url=self.url, nkey=self.nkey, ca=self.ca, tls_first=True)


def config_folder() -> Path:
    """The configuration folder of this user."""
    home = os.environ.get(CONFIG_HOME_VARIABLE)
    return (Path(home) if home else Path.home() / ".config") / "choir"


def joined(folder: Path) -> Membership | None:
    """The mesh that was joined by what is in a folder; None if there is none."""
    try:
        return Membership.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return None
