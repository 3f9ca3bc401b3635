"""What is known of a model of the store before it is loaded: by the header of its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ChoirError, ModelUnusable
from schemas.nodes.model_store import HeldModel
from services.agent.backends.backend import BackendInfo
from services.agent.settings import OnDemandSection
from services.engine import check_model_file
from services.engine.model.identity import file_identity
from services.engine.model.memory.need import MemoryNeed, gpu_part, layers_in, memory_need, room_in

GB = 1e9


@dataclass(frozen=True)
class Loadable:
    """What the lease says of it, and the memory that it takes when it is loaded, of which `gpu_bytes` are on
    GPUs; with a `fault` it cannot be."""

    info: BackendInfo
    need_bytes: int
    gpu_bytes: int = 0
    fault: ChoirError | None = None


def loadable_of(held: HeldModel, section: OnDemandSection, budget_bytes: int) -> Loadable:
    """Reads the header, and compares the need with the budget. Blocks. What a model can do is not known
    before it was loaded."""
    path = Path(held.paths[0])
    try:
        header = check_model_file(path)
        identity = file_identity(path)
    except ModelUnusable as error:
        return Loadable(_info(held, None, None), held.size_bytes, fault=error)
    need = memory_need(
        header, held.size_bytes, section.slots, section.context_tokens, exact=section.gpu_layers == 0
    )
    room = room_in(header, section.context_tokens)
    gpu_bytes = gpu_part(need.total_bytes, layers_in(header), section.gpu_layers)
    fits = need.total_bytes <= budget_bytes
    fault = None if fits else _too_large(held.name, need, budget_bytes, section.slots, room)
    return Loadable(_info(held, room, identity), need.total_bytes, gpu_bytes, fault)


def _info(held: HeldModel, context_tokens: int | None, identity: str | None) -> BackendInfo:
    return BackendInfo(
        context_tokens=context_tokens,
        parameters=held.parameters,
        file=held.file,
        size_bytes=held.size_bytes,
        quantisation=held.quantisation,
        identity=identity,
    )


def _too_large(name: str, need: MemoryNeed, budget_bytes: int, slots: int, room: int) -> ModelUnusable:
    more_gb = need.copies_bytes / GB
    copies = f"what is there in this processor's own form too {more_gb:,.2f} GB, " if more_gb else ""
    return ModelUnusable(
        f"{name} takes {need.total_bytes / GB:,.2f} GB when it is loaded, and this agent may use "
        f"{budget_bytes / GB:,.2f} GB for models on demand: raise memory_bytes of on_demand in its entry of "
        "[[agents]], or lower slots or context_tokens. Of that the weights are "
        f"{need.weights_bytes / GB:,.2f} GB, {copies}the cache of {slots} slots of {room:,} tokens "
        f"{need.cache_bytes / GB:,.2f} GB, and "
        f"{need.working_bytes / GB:,.2f} GB are to compute in",
        field="memory_bytes",
    )
