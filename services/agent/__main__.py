"""`python -m services.agent`"""

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.agent.service import Agent
from services.agent.settings import AgentSettings
from services.chassis.process.runner import run_service

if __name__ == "__main__":
    run_service("agent", AgentSettings, lambda settings, _identity: Agent(settings.agent, settings.workers))
