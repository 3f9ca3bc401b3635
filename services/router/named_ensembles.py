"""Ensembles with a name of their own: a request to one is a request to its members. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from schemas.commands import Ask
from schemas.ensembles import Ensemble
from schemas.errors import InvalidRequest
from services.chassis.plain_words import first_fault


class NamedEnsembles:
    """The ensembles of choir.toml. The name of one hides a model of that name."""

    def __init__(self, ensembles: Iterable[Ensemble]) -> None:
        self._by_name = {ensemble.name: ensemble for ensemble in ensembles}

    @property
    def all(self) -> tuple[Ensemble, ...]:
        """All of them, in the order in which they were named."""
        return tuple(self._by_name.values())

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
