"""Who asks in the request that is being answered."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from schemas.broker.catalog import Role
from schemas.errors import ChoirError
from schemas.requests.keys import ApiKey
from schemas.subjects import LOCAL_TENANT, Priority
from services.gateway.access.limits import KeyBudget, KeyUse


@dataclass(frozen=True)
class Caller:
    """A `tenant`, and the `key` that was shown, with its `use`. Without a key: whoever is on this host.

    `role` is the tenant's. `refused` is why nobody knows who asks. A browser whose cookie has the key
    operates the mesh until `fresh_until_s` (monotonic time), a while after it showed the key; then it is
    `stale`. The key's `secret` goes on to whoever does what the gateway may not do by itself. `work` is
    `batch` for the lines of a batch.
    """

    tenant: str = LOCAL_TENANT
    key: ApiKey | None = None
    use: KeyUse | None = None
    role: Role = "operate"
    refused: ChoirError | None = None
    fresh_until_s: float | None = None
    secret: str | None = field(default=None, repr=False)
    work: Priority = "interactive"

    @property
    def stale(self) -> bool:
        """Whether it showed its key too long ago for what operates the mesh."""
        return self.fresh_until_s is not None and time.monotonic() >= self.fresh_until_s

    @property
    def budget(self) -> KeyBudget | None:
        """The tokens a minute of its key, if they are limited."""
        return None if self.key is None or self.use is None else self.use.budget(self.key)

    @property
    def priority(self) -> Priority:
        """The class of what is asked: that of the key, and of a batch `batch` whatever the key says."""
        return self.work if self.key is None or self.work == "batch" else self.key.priority

    def may_ask(self, model: str) -> bool:
        """Whether the key opens a model, or an ensemble."""
        return self.key is None or not self.key.models or model in self.key.models


NOBODY = Caller()
CALLER = "caller"
"""Where the scope of a request that the gateway makes itself has its caller, in `state`."""

current_caller: ContextVar[Caller] = ContextVar("current_caller", default=NOBODY)
