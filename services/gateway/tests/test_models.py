"""The list of models that a gateway has: how old it is, and who waits while it is read."""

from __future__ import annotations

from services.gateway.requests.models import AHEAD_S, IN_USE_S, KNOWN_S, ModelList
from services.gateway.tests.serving import inside


async def test_nobody_waits_for_the_list_of_models_while_it_is_in_use(live_mesh: str) -> None:
    now_s = 0.0
    async with inside(live_mesh) as (mesh, _):
        # Given a list of models that was read for a request
        models = ModelList(mesh, {}, now=lambda: now_s)
        await models.find("choir-one")

        # When it gets old, it is read anew beforehand
        now_s = AHEAD_S + 1
        await models.read_ahead()

        # Then a request finds its model at once, although the first list would be too old
        now_s = KNOWN_S + 1
        assert models.at_hand("choir-one") is not None

        # And nothing is read for nobody
        now_s += IN_USE_S + 1
        await models.read_ahead()
        assert models.at_hand("choir-one") is None
