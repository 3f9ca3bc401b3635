"""The claim of one store to be the one that fetches a file from outside: no other has one meanwhile."""

from __future__ import annotations

import asyncio
import contextlib

from schemas import subjects
from schemas.errors import BrokerUnavailable
from schemas.nodes.model_store import FetchClaim
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, WrongRevision

RENEW_S = 3.0

log = get_logger("modelstore.hub")


class Claim:
    """The claim of a file, in a bucket from which a claim goes that nobody renews. One that is not this
    store's is never written over."""

    def __init__(self, claims: Bucket[FetchClaim], sha256: str, instance: str) -> None:
        self._claims = claims
        self._key = subjects.model_file_key(sha256)
        self._claim = FetchClaim(sha256=sha256, instance=instance)
        self._revision = 0

    async def take(self) -> bool:
        """Whether the claim is this store's, now. Raises BrokerUnavailable."""
        entry = await self._claims.get(self._key)
        if entry.value is not None and entry.value.instance != self._claim.instance:
            return False
        try:
            self._revision = await self._claims.update(self._key, self._claim, entry.revision)
        except WrongRevision:
            return False
        return True

    async def keep(self) -> bool:
        """Renews the claim, and takes one again that ran out while the broker was away. Returns, with
        False, when it is another store's."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                if not await self.take():
                    log.warning("another store has the claim of a file", sha256=self._claim.sha256)
                    return False
            except BrokerUnavailable as error:
                log.warning("a claim could not be renewed", sha256=self._claim.sha256, why=error.message)

    async def give_back(self) -> None:
        """Another store may fetch at once. While the broker is away the claim runs out by itself."""
        with contextlib.suppress(WrongRevision, BrokerUnavailable):
            await self._claims.delete(self._key, self._revision)
