"""`python -m services.metrics`"""

from services.chassis.service import run_service
from services.metrics.service import Metrics
from services.metrics.settings import MetricsSettings

if __name__ == "__main__":
    run_service("metrics", MetricsSettings, lambda settings, _identity: Metrics(settings.metrics))
