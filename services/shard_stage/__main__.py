"""`python -m services.shard_stage`"""

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.chassis.process.runner import run_service
from services.shard_stage.service import ShardStage
from services.shard_stage.settings import StageSettings

if __name__ == "__main__":
    run_service("shard_stage", StageSettings, lambda settings, _identity: ShardStage(settings))
