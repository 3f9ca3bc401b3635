"""Cordons: hosts and instances that get nothing new until somebody lets them in again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints, model_validator

from schemas.message import Act, Message, Name, field_error
from schemas.subjects import LOCAL_TENANT

HostLabel = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
]
"""A host as its leases call it."""


def _one_of(host: str | None, instance: str | None) -> None:
    if (host is None) == (instance is None):
        raise field_error("host", "name a host or an instance, one of them")


class Cordon(Message):
    """An entry of the bucket of cordons, since `at_s` and by the word of the tenant `by`.

    The agents of a `host`, or the one `instance`, finish what they have and pull nothing new; stage services
    get no new stage. With `drain` the stages that they hold are given to other nodes too.
    """

    host: HostLabel | None = None
    instance: Name | None = None
    drain: bool = False
    at_s: float
    by: str = LOCAL_TENANT

    @model_validator(mode="after")
    def _consistent(self) -> Cordon:
        _one_of(self.host, self.instance)
        return self

    @property
    def whom(self) -> str:
        """The name that it is about."""
        return self.host or self.instance or ""

    @property
    def way_out(self) -> str:
        """What is typed to take it away."""
        flag = "" if self.host is not None else " --instance"
        return f"choir nodes uncordon{flag} {self.whom}"


class ManageCordons(Message):
    """A client lists the cordons, or changes one: `cordon`, `drain` and `uncordon` name a `host`, or an
    `instance`."""

    action: Literal["list", "cordon", "drain", "uncordon"] = "list"
    host: HostLabel | None = None
    instance: Name | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ManageCordons:
        if self.action != "list":
            _one_of(self.host, self.instance)
        elif self.host is not None or self.instance is not None:
            raise field_error("host", "a list names nobody")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        return None if self.action == "list" else Act(self.action, self.host or self.instance)


class CordonsReply(Message):
    """All cordons, those of hosts first, as they are after what was asked."""

    cordons: tuple[Cordon, ...]
