"""Checks the room on the disk for the streams, and in memory for the models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from infra.broker.server.configuration import reserved_bytes
from infra.broker.server.store import LEAST_FREE_BYTES
from infra.settings import HostSettings
from services.chassis.process.limits import memory_available_bytes, memory_total_bytes
from services.cli.setup.validation.finding import Finding, ok, warning, wrong
from services.cli.views.tables.overview_tables import size
from services.client.finding.local_mesh import state_folder


def check_disk(settings: HostSettings) -> Iterator[Finding]:
    """The disk under the embedded broker's store."""
    if settings.broker.embedded:
        store = settings.store_dir(state_folder())
        free = shutil.disk_usage(_existing(store)).free
        yield _disk(store, free, reserved_bytes("file"))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _disk(store: Path, free: int, may_grow_to: int) -> Finding:
    what, found = "disk", f"{size(free)} free for {store}"
    if free < LEAST_FREE_BYTES:
        return wrong(what, found, "make room, or set store_dir in section [broker] to another disk")
    if free < may_grow_to:
        grown = f"the streams may grow to {size(may_grow_to)}"
        return warning(what, f"{found}; {grown}", "keep an eye on it, or set store_dir to another disk")
    return ok(what, found)


def check_memory(settings: HostSettings) -> Iterator[Finding]:
    """The models of this host against its memory. Their contexts come on top of the files' sizes."""
    needed = sum(
        model.path.stat().st_size * agent.replicas
        for agent in settings.agents
        for model in agent.models
        if model.path is not None and model.path.is_file() and model.gpu_layers == 0
    )
    if needed:
        yield _memory(needed, memory_total_bytes(), memory_available_bytes())


def _memory(needed: int, total: int, available: int) -> Finding:
    what, found = (
        "memory",
        f"the models take {size(needed)} of {size(total)}, {size(available)} are available",
    )
    if needed > total:
        return wrong(what, found, "take smaller models, fewer replicas, or another host for some")
    if needed > available:
        return warning(what, found, "stop something else, or take smaller models")
    return ok(what, found)
