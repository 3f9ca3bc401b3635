"""`choir`, or `python -m services.cli`."""

import sys

from services.chassis.process.garbage import end_without_search  # before what takes long to import
from services.cli.app import build_app
from services.cli.shell.outcome import run


def main() -> None:
    """Runs the command that was typed, and ends with its exit code."""
    code = run(build_app(), sys.argv[1:])
    end_without_search()
    sys.exit(code)


if __name__ == "__main__":
    main()
