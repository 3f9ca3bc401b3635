"""`python -m services.gateway`"""

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.chassis.process.runner import run_service
from services.gateway.service import Gateway
from services.gateway.settings import GatewaySettings

if __name__ == "__main__":
    run_service("gateway", GatewaySettings, Gateway)
