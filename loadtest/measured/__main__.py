"""`python -m loadtest.measured [NAME ...]`: runs benchmarks and writes their figures into the READMEs.

Without names all that a README has a place for; `pipeline` is all of that bench, `pipeline/decode` one place.
Each bench has a process of its own, and begins when the machine has come to rest. Its report is kept in
results/measured/ and its tables are written at once, so whoever ends this early goes on later with the names
that are left. A report that does not count, because the machine was busy, is not written; --anyway writes it,
and then the README says so. Exit codes: 0 all is written, 1 something is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from infra.docs.readmes import ROOT
from loadtest.bench.report import Report
from loadtest.faults import FAILED, LoadtestError, WrongOption, complain
from loadtest.measured.places import Places, all_places, chosen, place_of, write
from loadtest.measured.runs import at_rest, read, run
from loadtest.measured.section import does_not_count
from schemas.errors import ConfigurationError

PROGRAM = "measured"
KEPT = ROOT / "results" / "measured"
WAIT_S = 300.0


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.measured",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a bench, or one of its places")
    parser.add_argument(
        "--list", action="store_true", help="tell the places and their READMEs, and do nothing"
    )
    parser.add_argument(
        "--from", dest="files", action="append", default=[], type=Path, metavar="FILE",
        help="a report of before, as `just bench NAME --json` prints it; nothing is run",
    )  # fmt: skip
    parser.add_argument(
        "--anyway", action="store_true", help="write also what does not count, and say so there"
    )
    parser.add_argument(
        "--wait", type=float, default=WAIT_S, metavar="SECONDS", help="for the machine to rest"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of the main README")
    options = parser.parse_args(arguments)
    try:
        known = all_places(options.root)
        if options.list:
            return _listed(chosen(options.names, known), known, options.root)
        if options.files:
            reports = _read(options.files, options.names, known)
        else:
            reports = _measured(chosen(options.names, known), options.wait, anyway=options.anyway)
        return _written(reports, known, options.root, anyway=options.anyway)
    except (ConfigurationError, WrongOption) as error:
        return complain(PROGRAM, error)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _listed(named: list[str], known: Places, root: Path) -> int:
    for place in named:
        _tell(f"{place}: {', '.join(str(readme.relative_to(root)) for readme in known[place])}")
    return 0


def _read(files: list[Path], names: list[str], known: Places) -> Iterator[tuple[str, Report | LoadtestError]]:
    if names and (len(names) != len(files) or chosen(names, known) != names):
        raise WrongOption(f"--from with names: one place for each file, of {', '.join(known)}")
    for number, file in enumerate(files):
        try:
            report = read(file)
        except LoadtestError as error:
            yield str(file), error
            continue
        yield (names[number] if names else place_of(report, known)), report


def _measured(
    named: list[str], wait_s: float, *, anyway: bool
) -> Iterator[tuple[str, Report | LoadtestError]]:
    """Each place with its report, or with why there is none."""
    for number, place in enumerate(named, start=1):
        if not at_rest(wait_s, _tell) and not anyway:
            yield place, LoadtestError(f"{place}: not begun, for the machine has not come to rest")
            continue
        _tell(f"{place} ({number} of {len(named)}): measuring since {time.strftime('%H:%M:%S')}")
        try:
            yield place, run(place, KEPT)
        except LoadtestError as error:
            yield place, error


def _written(
    reports: Iterator[tuple[str, Report | LoadtestError]], known: Places, root: Path, *, anyway: bool
) -> int:
    left: list[str] = []
    for place, report in reports:
        if isinstance(report, LoadtestError):
            complain(PROGRAM, report)
        elif (why := does_not_count(report)) and not anyway:
            complain(PROGRAM, LoadtestError(f"{place}: not written, for {why} (--anyway writes it)"))
        else:
            missed = sum(not target.met for target in report.targets)
            where = ", ".join(str(readme.relative_to(root)) for readme in write(report, place, known))
            _tell(f"{place}: written to {where}; {missed} of {len(report.targets)} targets missed")
            continue
        left.append(place)
    if left:
        _tell(f"left: {' '.join(left)}")
    return FAILED if left else 0


if __name__ == "__main__":
    sys.exit(main())
