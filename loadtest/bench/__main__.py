"""`python -m loadtest.bench NAME [--json] [--check]`: runs one benchmark and reports its figures.

--json prints one JSON document on stdout; --check exits with 1 when a target is not met.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from rich.console import Console

from loadtest.bench.report import Report, show

# A bench is imported when it is run: what one needs may not be installed where another runs.
BENCHES = {
    "engine": "loadtest.bench.engine",
    "evaluation": "loadtest.bench.evaluation",
    "gateway": "loadtest.bench.gateway",
    "ingest": "loadtest.bench.ingest",
    "generator": "loadtest.bench.generator",
    "accounts": "loadtest.bench.accounts",
    "cluster": "loadtest.bench.cluster",
    "overhead": "loadtest.bench.overhead",
    "pipeline": "loadtest.bench.pipeline",
    "scaling": "loadtest.bench.scaling",
}
TARGET_MISSED = 1
WRONG_USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("name", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is not met")
    options = parser.parse_args(arguments)
    if options.name not in BENCHES:
        sys.stderr.write(f"there is no bench {options.name!r}; there are: {', '.join(BENCHES)}\n")
        return WRONG_USAGE
    report: Report = import_module(BENCHES[options.name]).run()
    if options.json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    else:
        show(report, Console())
    return TARGET_MISSED if options.check and not report.met else 0


if __name__ == "__main__":
    sys.exit(main())
