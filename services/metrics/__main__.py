"""`python -m services.metrics`"""

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.chassis.identity import Identity
from services.chassis.process.runner import run_service
from services.metrics.service import Metrics
from services.metrics.settings import MetricsSettings
from services.metrics.store.memory_limit import limit_memory


def build(settings: MetricsSettings, _identity: Identity) -> Metrics:
    """The service, in a process with a ceiling for its memory."""
    limit_memory(settings.metrics.memory_mb)
    return Metrics(settings.metrics)


if __name__ == "__main__":
    run_service("metrics", MetricsSettings, build)
