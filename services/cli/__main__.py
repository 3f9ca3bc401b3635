"""`choir`, or `python -m services.cli`."""

import sys

import services.chassis.process.garbage  # noqa: F401  (before what takes long to import)
from services.cli.app import build_app
from services.cli.shell.outcome import run


def main() -> None:
    """Runs the command that was typed, and ends with its exit code."""
    sys.exit(run(build_app(), sys.argv[1:]))


if __name__ == "__main__":
    main()
