"""Loading models on demand before anybody asks for them, and unloading them before they go by themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.commands import KeepAlive
from schemas.message import Act, Message, Name, Struct, field_error, is_none
from schemas.nodes.lease import OnDemand


class ManageLoaded(Message):
    """An operator has a `model` on demand loaded or unloaded, at the agent `instance`.

    Without an instance it is loaded where it is loaded already, or else where most room is, and unloaded
    wherever it is. `keep_alive_s` is how long it stays when nobody asks for it; without that as long as its
    agent's settings say. A router hands the same on to the agent.
    """

    action: Literal["load", "unload"]
    model: Name
    instance: Name | None = None
    keep_alive_s: Annotated[KeepAlive | None, Field(exclude_if=is_none)] = None

    @model_validator(mode="after")
    def _consistent(self) -> ManageLoaded:
        if self.action == "unload" and self.keep_alive_s is not None:
            raise field_error("keep_alive_s", "what is unloaded does not stay: leave keep_alive_s out")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        return Act(self.action, self.model)


class LoadedAt(Struct):
    """How an agent has the model now; where it `leaves` it goes when the `busy` requests are finished."""

    instance: Name
    on_demand: OnDemand
    busy: Annotated[int, Field(ge=0)] = 0
    leaves: bool = False

    @property
    def words(self) -> str:
        """The same for people: `loaded at attic-agent`."""
        waits = f", and goes when what is in work ({self.busy}) is finished" if self.leaves else ""
        return f"{self.on_demand.state} at {self.instance}{waits}"


class LoadedReply(Message):
    """The agents that were asked. What takes longer goes on: the leases tell how far it is."""

    model: Name
    agents: tuple[LoadedAt, ...]
