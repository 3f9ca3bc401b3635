"""Settings of a host from the text of a choir.toml."""

from __future__ import annotations

from pathlib import Path

from infra.settings import HostSettings, load_host_settings


def settings_of(folder: Path, text: str) -> HostSettings:
    """The settings that a choir.toml with this text stands for; the file is written to `folder`."""
    path = folder / "choir.toml"
    path.write_text(text)
    return load_host_settings(path)
