"""Ensembles with a name, as the mesh keeps them: whose word each is, and how operators change them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.ensembles.named import Ensemble
from schemas.message import Act, Message, Name, Struct, field_error
from schemas.requests.tenants import TenantName

OPERATORS_SAID = "`choir ensembles add`"


class EnsembleWord(Struct):
    """What is said of one name: by the choir.toml of `hosts`, and by operators if `operators` is true."""

    ensemble: Ensemble
    hosts: tuple[TenantName, ...] = ()
    operators: bool = False


class NamedEnsemble(Message):
    """An entry of the bucket of ensembles: all that is said of one name. The first word counts; whoever says
    otherwise comes after it, and counts when nobody says that any more."""

    words: Annotated[tuple[EnsembleWord, ...], Field(min_length=1)]

    @property
    def ensemble(self) -> Ensemble:
        """What counts."""
        return self.words[0].ensemble

    @property
    def dispute(self) -> str | None:
        """Who says otherwise, and what is to be done; None where all say the same."""
        if len(self.words) == 1:
            return None
        name, others = self.ensemble.name, self.words[1:]
        hosts = " and of ".join(host for word in others for host in word.hosts)
        said = [f"the choir.toml of {hosts}"] if hosts else []
        said += [OPERATORS_SAID for word in others if word.operators]
        first = self.words[0]
        counts = first.hosts[0] if first.hosts else OPERATORS_SAID
        otherwise = f"{' and '.join(said)} says otherwise than {counts}"
        return (
            f"ensemble {name}: {otherwise}, which was first and counts: make them the same; "
            f"or `choir ensembles rm {name}`, and `choir up` where the right one is"
        )


class ManageEnsembles(Message):
    """A client lists the ensembles that have a name, adds or changes one of the operators' own (`add`, with a
    whole `ensemble`), or has a `name` forgotten (`remove`)."""

    action: Literal["list", "add", "remove"] = "list"
    ensemble: Ensemble | None = None
    name: Name | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ManageEnsembles:
        if (self.action == "add") != (self.ensemble is not None):
            raise field_error("ensemble", "add, and nothing else, needs an ensemble")
        if (self.action == "remove") != (self.name is not None):
            raise field_error("name", "remove, and nothing else, needs a name")
        return self

    def act(self) -> Act | None:
        """As the base class says."""
        target = self.name if self.ensemble is None else self.ensemble.name
        return None if self.action == "list" else Act(self.action, target)


class EnsemblesReply(Message):
    """The ensembles that a request concerns, in the order of their names: all for a list, else the one that
    was added, or is gone now. `left_out` counts those without room."""

    ensembles: tuple[NamedEnsemble, ...]
    left_out: int | None = None
