"""`python -m services.summarizer`"""

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.chassis.process.runner import run_service
from services.summarizer.service import Summarizer
from services.summarizer.settings import SummarizerSettings

if __name__ == "__main__":
    run_service("summarizer", SummarizerSettings, lambda settings, _identity: Summarizer(settings.summarizer))
