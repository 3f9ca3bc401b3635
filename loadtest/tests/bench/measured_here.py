"""`python -m loadtest.tests.bench.measured_here NAME --json`: the benchmarks' own program, with two more
that take no time: `quick` has figures, `broken` has none."""

from __future__ import annotations

import sys
from types import ModuleType

from loadtest.bench import __main__ as bench
from loadtest.bench.report import Report, at_least, at_most
from loadtest.faults import LoadtestError


def quick() -> Report:
    """A report of one figure."""
    return Report(
        bench="quick", raw={"answers": 42}, targets=(at_least("answers", 42, 1), at_most("lost", 1, 0))
    )


def broken() -> Report:
    """A bench that cannot be run."""
    raise LoadtestError("the oven is cold")


def main() -> int:
    """Runs the bench that is named; its exit code."""
    for run in (quick, broken):
        module = ModuleType(f"{run.__name__}_bench")
        module.run = run  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        bench.BENCHES[run.__name__] = module.__name__
    return bench.main()


if __name__ == "__main__":
    sys.exit(main())
