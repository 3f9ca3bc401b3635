"""What a task needs of a model, and the refusal where the model, or the server behind it, cannot do that.

Pure: takes values, raises a typed error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from schemas.commands import Ask, Gather, Generate
from schemas.errors import InvalidRequest
from schemas.nodes.lease import Capability

Task = Ask | Gather | Generate


@dataclass(frozen=True)
class Need:
    """A capability that a task needs, the `field` that asks for it, and what to do without it."""

    capability: Capability
    field: str
    what: str
    way_out: str


def needs(task: Task) -> Iterator[Need]:
    """Everything that a task needs, what decides most first."""
    raw = None if isinstance(task, Gather) else task.raw
    embed = None if isinstance(task, Gather) else task.embed
    if embed is not None:
        yield Need("embedding", "embed", "give vectors", "ask an embedding model")
    elif raw is not None:
        yield Need("raw", "raw", "go on with a text without its chat template", "ask with messages")
    else:
        yield Need("completion", "messages", "answer messages", "ask a model that generates text")
    if task.sampling.prompt_logprobs:
        what = "tell the log probabilities of a prompt"
        yield Need("scoring", "sampling.prompt_logprobs", what, "ask a model that an agent runs by itself")
    if task.tools and task.tool_choice != "none":
        yield Need("tools", "tools", "call tools", "leave them out")
    messages = task.conversation if isinstance(task, Ask) else task.messages
    for number, message in enumerate(messages):
        if message.images:
            field = f"messages.{number}.images"
            yield Need("vision", field, "see images", "leave them out, or say in words what they show")
    if task.sampling.think:
        yield Need("thinking", "sampling.think", "think apart from its answer", "leave think out")


def check_capable(task: Task, capabilities: Collection[str], model: str) -> None:
    """Raises InvalidRequest, naming the field and the way out, if `model` cannot do a task. Nothing is known
    of a model without capabilities, so nothing is refused."""
    for need in needs(task):
        if capabilities and need.capability not in capabilities:
            raise InvalidRequest(
                f"{need.field}: {model} cannot {need.what}: {need.way_out}, or ask another model",
                field=need.field,
            )
