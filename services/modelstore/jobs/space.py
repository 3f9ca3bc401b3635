"""The room that a store has."""

from __future__ import annotations

import shutil

from schemas.errors import NoRoom
from schemas.nodes.model_store import StoreSpace
from services.chassis.identity import Identity
from services.modelstore.files.known_files import KnownFiles
from services.modelstore.settings import ModelStoreSection

MB = 1_000_000


class Space:
    """What the store's own files take, and what it may take besides."""

    def __init__(self, settings: ModelStoreSection, known: KnownFiles) -> None:
        self._settings = settings
        self._known = known

    @property
    def free_bytes(self) -> int:
        """What more may be written: by the budget, and by what is free on the disk."""
        on_disk = shutil.disk_usage(self._settings.folder).free - self._settings.min_free_bytes
        budget = self._settings.budget_bytes
        left = on_disk if budget is None else min(on_disk, budget - self._known.own_bytes)
        return max(0, left)

    def check(self, wanted_bytes: int, model: str) -> None:
        """Raises NoRoom, with both numbers, if so much does not fit."""
        free = self.free_bytes
        if wanted_bytes > free:
            raise NoRoom(
                f"{model} takes {wanted_bytes / MB:,.1f} MB more, and the store of this host has room for "
                f"{free / MB:,.1f} MB: remove a model (`choir model rm`), or raise budget_bytes in section "
                "[modelstore]",
                field="budget_bytes",
            )

    def told(self, identity: Identity) -> StoreSpace:
        """What clients see."""
        return StoreSpace(
            instance=identity.instance, host=identity.host, used_bytes=self._known.own_bytes,
            free_bytes=self.free_bytes,
        )  # fmt: skip
