"""`python -m services.aggregator`"""

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.aggregator.receipts.signing import Signer
from services.aggregator.service import Aggregator
from services.aggregator.settings import AggregatorSettings
from services.chassis.process.runner import run_service

if __name__ == "__main__":
    run_service(
        "aggregator",
        AggregatorSettings,
        lambda settings, _identity: Aggregator(
            settings.aggregator, signer=Signer.of_file(settings.mesh.nkey)
        ),
    )
