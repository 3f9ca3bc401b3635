"""Checks the room on the disk for the streams, and in memory, of the host and its GPUs, for the models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from infra.broker.server.configuration import reserved_bytes
from infra.broker.server.store import LEAST_FREE_BYTES
from infra.settings import HostSettings
from schemas.errors import ModelUnusable
from services.agent.settings import AgentSection
from services.chassis.process.limits import memory_available_bytes, memory_total_bytes
from services.cli.setup.validation.finding import Finding, ok, warning, wrong
from services.cli.views.tables.overview_tables import size
from services.client.finding.local_mesh import state_folder
from services.engine.model.devices import Devices, GpuDevice, free_bytes, gpu_devices, total_bytes
from services.engine.model.gguf.check import check_model_file
from services.engine.model.gguf.split_files import size_of
from services.engine.model.memory.need import gpu_part, layers_in, memory_need

ALL_LAYERS = -1


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


def check_memory(settings: HostSettings, devices: Devices = gpu_devices) -> Iterator[Finding]:
    """What the models of this host take when they are loaded, with the caches of their slots, against its
    memory and that of its GPUs. Of models on demand that counts which their agent may take, if it says so."""
    on_host = on_gpus = 0
    for agent in settings.agents:
        for need_bytes, gpu_bytes in _needs(agent):
            on_host += agent.replicas * (need_bytes - gpu_bytes)
            on_gpus += agent.replicas * gpu_bytes
    if on_gpus:
        yield _gpus(on_gpus, devices())
    if on_host:
        yield _memory(on_host, memory_total_bytes(), memory_available_bytes())


def _needs(agent: AgentSection) -> Iterator[tuple[int, int]]:
    """What each model takes, and how much of that on GPUs; files that cannot be loaded take nothing."""
    for model in agent.models:
        if model.path is None or agent.backend != "llama_cpp":
            continue
        try:
            header = check_model_file(model.path)
            size_bytes = size_of(model.path)
        except (ModelUnusable, OSError):
            continue
        exact = model.gpu_layers == 0
        need = memory_need(header, size_bytes, model.slots, model.context_tokens, exact=exact).total_bytes
        yield need, gpu_part(need, layers_in(header), model.gpu_layers)
    on_demand = agent.on_demand
    if on_demand is not None and on_demand.memory_bytes:
        on_gpus = on_demand.memory_bytes if on_demand.gpu_layers == ALL_LAYERS else 0
        yield on_demand.memory_bytes, on_gpus


def _gpus(needed: int, devices: tuple[GpuDevice, ...]) -> Finding:
    what, taken = "memory of GPUs", f"the models take {size(needed)}"
    if not devices:
        to_do = "compile it for the GPU as services/engine/README.md says, or set gpu_layers = 0"
        return wrong(what, f"{taken} there, and llama.cpp sees no GPU", to_do)
    total, free = total_bytes(devices), free_bytes(devices)
    names = ", ".join(device.name for device in devices)
    found = f"{taken} of {size(total)} ({names}), {size(free)} are free"
    if needed > total:
        return wrong(what, found, "set gpu_layers to fewer layers, or take smaller models or fewer slots")
    if needed > free:
        return warning(what, found, "stop what uses the GPU, or set gpu_layers to fewer layers")
    return ok(what, found)


def _memory(needed: int, total: int, available: int) -> Finding:
    what, found = (
        "memory",
        f"the models take {size(needed)} of {size(total)}, {size(available)} are available",
    )
    if needed > total:
        return wrong(what, found, "take smaller models, fewer slots or replicas, or another host for some")
    if needed > available:
        return warning(what, found, "stop something else, or take smaller models or fewer slots")
    return ok(what, found)
