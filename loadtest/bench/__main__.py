"""`python -m loadtest.bench NAME [--json] [--check]`: runs one benchmark and reports its figures.

--json prints one JSON document on stdout; --check exits with 1 when a target is not
met, and when the machine had other work to do as the bench began.
The exit code 3 says that there are no figures.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from rich.console import Console

from loadtest.bench.report import Report, circumstances, show
from loadtest.faults import WRONG_USAGE, LoadtestError

# A bench is imported when it is run: what one needs may not be installed where another runs.
BENCHES = {
    "cascade": "loadtest.bench.mesh.cascade",
    "dashboard": "loadtest.bench.http.dashboard",
    "engine": "loadtest.bench.inference.engine",
    "evaluation": "loadtest.bench.mesh.evaluation",
    "gateway": "loadtest.bench.http.gateway",
    "gateway-memory": "loadtest.bench.http.gateway_memory",
    "hang-up": "loadtest.bench.http.hang_up",
    "ingest": "loadtest.bench.mesh.ingest",
    "generator": "loadtest.bench.mesh.generator",
    "accounts": "loadtest.bench.mesh.tenants.accounts",
    "cluster": "loadtest.bench.mesh.cluster",
    "modelstore": "loadtest.bench.store.modelstore",
    "hostile-sampling": "loadtest.bench.abuse.hostile_sampling",
    "hostile": "loadtest.bench.abuse.hostile",
    "neighbour": "loadtest.bench.mesh.tenants.neighbour",
    "overhead": "loadtest.bench.mesh.overhead",
    "pipeline": "loadtest.bench.inference.pipeline",
    "prefixes": "loadtest.bench.mesh.prefixes",
    "reaggregation": "loadtest.bench.mesh.reaggregation",
    "speculation": "loadtest.bench.inference.speculation",
    "sql-beside": "loadtest.bench.abuse.sql_beside",
    "scaling": "loadtest.bench.mesh.scaling",
    "shared-cores": "loadtest.bench.inference.shared_cores",
    "unknown-ids": "loadtest.bench.mesh.tenants.unknown_ids",
    "way": "loadtest.bench.way",
}
TARGET_MISSED = DOES_NOT_COUNT = 1
NOT_DONE = 3


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("name", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--check", action="store_true", help="exit 1 when a target is not met, or on a busy machine"
    )
    options = parser.parse_args(arguments)
    if options.name not in BENCHES:
        sys.stderr.write(f"there is no bench {options.name!r}; there are: {', '.join(BENCHES)}\n")
        return WRONG_USAGE
    begun = circumstances()
    try:
        report: Report = import_module(BENCHES[options.name]).run()
        report = report.model_copy(update=begun)
    except LoadtestError as error:
        sys.stderr.write(f"bench {options.name}: {error}\n")
        return NOT_DONE
    if options.json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    else:
        show(report, Console())
    if options.check and not report.quiet:
        sys.stderr.write(
            f"bench {options.name}: the load was {report.load_before_1m} before: the figures do not count\n"
        )
        return DOES_NOT_COUNT
    return TARGET_MISSED if options.check and not report.met else 0


if __name__ == "__main__":
    sys.exit(main())
