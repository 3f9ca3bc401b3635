"""`python -m services.router`"""

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.chassis.process.runner import run_service
from services.router.service import Router
from services.router.settings import RouterSettings

if __name__ == "__main__":
    run_service(
        "router", RouterSettings, lambda settings, _identity: Router(settings.router, settings.ensembles)
    )
