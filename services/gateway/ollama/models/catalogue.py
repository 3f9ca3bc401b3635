"""What Ollama's clients are told of models: lists of them, and each in detail."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from schemas.replies import ModelSummary
from services.gateway.requests.ensembles import ENSEMBLE_FAMILY
from services.gateway.requests.models import Target

FAMILY = "choir"
NEVER = "2318-01-01T00:00:00Z"
"""When a model is unloaded that stays. A date that has passed would read as if it was being unloaded now."""
SHOWN_CAPABILITIES = ("completion", "tools", "thinking", "vision")
SYSTEM_PART = "{{ if .System }}{{ .System }}\n{{ end }}"
TOOLS_PART = "{{ if .Tools }}{{ .Tools }}\n{{ end }}"
PROMPT_PART = "{{ .Prompt }}"
UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def listed(target: Target, since_s: float) -> dict[str, Any]:
    """A model in the list of all. `since_s` is since when it is known, in seconds since the epoch."""
    return {
        "name": target.name,
        "model": target.name,
        "modified_at": moment(since_s),
        "size": size(target),
        "digest": digest(target),
        "details": details(target),
    }


def running(target: Target) -> dict[str, Any]:
    """A model in the list of those that are loaded."""
    on_demand = target.members[0].on_demand
    at_s = None if on_demand is None else on_demand.unload_at_s
    return {
        "name": target.name,
        "model": target.name,
        "size": size(target),
        "digest": digest(target),
        "details": details(target),
        "expires_at": NEVER if at_s is None else moment(at_s),
        "size_vram": 0,
        "context_length": target.context_tokens or 0,
    }


def is_loaded(target: Target) -> bool:
    """Whether it is in memory somewhere: a model on demand is not always."""
    on_demand = target.members[0].on_demand if target.ensemble is None else None
    return on_demand is None or on_demand.state == "loaded"


def shown(target: Target, since_s: float) -> dict[str, Any]:
    """A model in detail. Some clients look for one `context_length`, others for `.Tools` in the template.

    The `ollama` command before 0.12 panics where one of the numbers of `model_info` is missing: those that
    nobody tells are 0. Only a context is left out, for which other clients would take the 0.
    """
    can = capabilities(target)
    template = SYSTEM_PART + (TOOLS_PART if "tools" in can else "") + PROMPT_PART
    info: dict[str, Any] = {
        "general.architecture": FAMILY,
        "general.basename": target.plain_name,
        "general.parameter_count": parameters(target) or 0,
        f"{FAMILY}.embedding_length": 0,
    }
    if target.context_tokens is not None:
        info[f"{FAMILY}.context_length"] = target.context_tokens
    return {
        "modelfile": f'FROM {target.name}\nTEMPLATE """{template}"""\n',
        "parameters": "" if target.context_tokens is None else f"num_ctx {target.context_tokens}",
        "template": template,
        "details": details(target),
        "model_info": info,
        "capabilities": can,
        "modified_at": moment(since_s),
    }


def details(target: Target) -> dict[str, Any]:
    """What is known of a model's files; of an ensemble, that it is one."""
    family = FAMILY if target.ensemble is None else ENSEMBLE_FAMILY
    quantisations = {member.quantisation or "" for member in target.members}
    return {
        "parent_model": "",
        "format": "gguf" if any(member.file for member in target.members) else "",
        "family": family,
        "families": [family],
        "parameter_size": short(parameters(target)),
        "quantization_level": quantisations.pop() if len(quantisations) == 1 else "",
        "context_length": target.context_tokens or 0,
    }


def capabilities(target: Target) -> list[str]:
    """What all members can do. `embedding` only of a model that does nothing else: `ollama run` would have
    no conversation with one that says it."""
    known = [set(member.capabilities or ("completion",)) for member in target.members]
    common = set.intersection(*known)
    can = [name for name in SHOWN_CAPABILITIES if name in common]
    return can or [name for name in ("embedding",) if name in common]


def size(target: Target) -> int:
    """Bytes of all files."""
    return sum(member.size_bytes or 0 for member in target.members)


def parameters(target: Target) -> int | None:
    """The parameters of all members; None if one does not say."""
    counts = [member.parameters for member in target.members]
    return None if None in counts else sum(count or 0 for count in counts)


def short(count: int | None) -> str:
    """A number of parameters as people say it: `3.2B`."""
    for unit, letter in UNITS:
        if count is not None and count >= unit:
            return f"{count / unit:.1f}{letter}"
    return "" if count is None else str(count)


def digest(target: Target) -> str:
    """64 hexadecimal digits that stay the same as long as the model does."""
    ensemble = "" if target.ensemble is None else target.ensemble.strategy
    said = "\n".join((target.plain_name, ensemble, *map(_identity, target.members)))
    return hashlib.sha256(said.encode()).hexdigest()


def _identity(member: ModelSummary) -> str:
    parts: Sequence[object] = (member.name, member.file, member.size_bytes, member.quantisation)
    return "\t".join(map(str, parts))


def moment(at_s: float) -> str:
    """Seconds since the epoch as clients read a time."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
