"""`python -m services.modelstore`"""

import os

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.chassis.identity import Identity
from services.chassis.nats.connection import read_at_once
from services.chassis.process.memory import keep_freed
from services.chassis.process.runner import run_service
from services.modelstore.service import ModelStore
from services.modelstore.settings import ModelStoreSettings

KEPT_BYTES = 32 * 1024 * 1024
"""What ranges that are sent and received take at a time, and some more."""

READ_BYTES = 1024 * 1024
"""Two ranges."""


def build(settings: ModelStoreSettings, identity: Identity) -> ModelStore:
    """The service."""
    keep_freed(KEPT_BYTES)
    read_at_once(READ_BYTES)
    if hasattr(os, "nice"):
        os.nice(settings.modelstore.niceness)
    return ModelStore(settings.modelstore, identity)


if __name__ == "__main__":
    run_service("modelstore", ModelStoreSettings, build)
