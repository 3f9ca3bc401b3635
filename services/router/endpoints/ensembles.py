"""The endpoint `choir.ensembles`: operators list, add and remove ensembles with a name."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.ensembles.kept import EnsemblesReply, ManageEnsembles, NamedEnsemble
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Caller
from services.chassis.registry.ensembles import Ensembles

log = get_logger("router.ensembles")


class EnsemblesEndpoint:
    """`choir.ensembles`: list, add, remove. Every router hears of a change from the bucket."""

    def __init__(self, ensembles: Ensembles) -> None:
        self._ensembles = ensembles

    async def manage(self, request: ManageEnsembles, caller: Caller) -> None:
        """Does what is asked, and sends the ensembles that it concerns: all of them for a list."""
        if request.ensemble is not None:
            concerned: tuple[NamedEnsemble, ...] = (await self._ensembles.add(request.ensemble),)
        elif request.name is not None:
            concerned = (await self._ensembles.remove(request.name),)
        else:
            concerned = self._ensembles.kept
        if request.action != "list":
            name = concerned[0].ensemble.name
            log.warning("ensemble changed", action=request.action, name=name, by=caller.tenant)
        await caller.send_what_fits(_lists(concerned))


def _lists(concerned: tuple[NamedEnsemble, ...]) -> Iterator[EnsemblesReply]:
    """All of them, and ever fewer."""
    yield EnsemblesReply(ensembles=concerned)
    some = concerned
    while some:
        some = some[: len(some) // 2]
        yield EnsemblesReply(ensembles=some, left_out=len(concerned) - len(some))
