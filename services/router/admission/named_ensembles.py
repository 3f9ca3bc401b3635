"""Ensembles with a name of their own: a request to one is a request to its members. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from schemas.commands import Ask
from schemas.ensembles.named import Ensemble
from schemas.errors import InvalidRequest
from services.chassis.plain_words import first_fault

BUILT_IN = tuple(Ensemble(name=name, strategies=("auto",)) for name in ("choir/auto", "auto"))
"""All models, of which the strategy `auto` asks whom it needs."""


class NamedEnsembles:
    """The ensembles of choir.toml, and those that are built in. The name of one hides a model's."""

    def __init__(self, ensembles: Iterable[Ensemble]) -> None:
        self._named = {ensemble.name: ensemble for ensemble in ensembles}
        self._by_name = {ensemble.name: ensemble for ensemble in BUILT_IN} | self._named

    @property
    def all(self) -> tuple[Ensemble, ...]:
        """Those of choir.toml, in the order in which they were named."""
        return tuple(self._named.values())

    def resolve(self, ask: Ask) -> Ask:
        """The request to the members, if it names an ensemble; any other as it is.

        InvalidRequest names what one model does and no ensemble.
        """
        ensemble = self._by_name.get(ask.model or "")
        if ensemble is None:
            return ask
        said = ask.model_dump(exclude={"model"}, exclude_unset=True)
        quorum = ask.quorum or ensemble.quorum
        said |= {"models": ensemble.members, "strategies": ensemble.strategies, "quorum": quorum}
        try:
            return Ask.model_validate(said)
        except ValidationError as error:
            field, what = first_fault(error)
            raise InvalidRequest(f"{field}: {what}; {ensemble.name} is an ensemble", field=field) from error
