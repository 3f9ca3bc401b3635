"""`python -m services.modelstore`"""

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.chassis.identity import Identity
from services.chassis.process.runner import run_service
from services.modelstore.service import ModelStore
from services.modelstore.settings import ModelStoreSettings


def build(settings: ModelStoreSettings, identity: Identity) -> ModelStore:
    """The service."""
    return ModelStore(settings.modelstore, identity)


if __name__ == "__main__":
    run_service("modelstore", ModelStoreSettings, build)
