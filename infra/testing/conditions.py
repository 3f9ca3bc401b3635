"""A pytest plugin: the conditions that a test runs under. Cores of its own, a seed, a machine kept busy.

Tests start hundreds of processes, and without bytecode each compiles every module that it imports. Where
bytecode is not wanted beside the sources (PYTHONDONTWRITEBYTECODE), they keep it in pytest's cache.

@pytest.mark.alone   the test needs the cores of the machine: no other test of this run is at work meanwhile
@pytest.mark.long    the tests of this file take long: it is dealt out before the other files, so that no core
                     waits for it at the end
@pytest.mark.soak    the test takes long to show what a shorter one shows as well, at more length or with more
                     of everything: `uv run pytest` leaves it out, `just soak-tests` and `.ci/run` run it
fault_seed           a seed of the test's own, made from the run's seed: it is shown, and `--fault-seed`
                     gives again
--busy N             N processes compute without end while the tests run, as on a host that others use
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import os
import random
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck

from infra.host.children.processes import PREEXEC
from services.chassis.process.garbage import RARE

SEEDS = 1_000_000
EXAMPLES = 50
"""Of each property, where its test does not say how many: others in each run."""
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
BYTECODE_FOLDER = "PYTHONPYCACHEPREFIX"
LOOP = "while True: pass"

_keeping_busy = pytest.StashKey[list[subprocess.Popen[bytes]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of this plugin."""
    group = parser.getgroup("conditions")
    group.addoption("--fault-seed", type=int, help="the seed of the moments of faults (drawn, if not given)")
    group.addoption("--busy", type=int, default=0, metavar="N", help="keep N cores busy meanwhile")


def pytest_configure(config: pytest.Config) -> None:
    """Draws the seed before xdist's workers start: they are given the options as they stand then."""
    config.addinivalue_line("markers", "alone: needs the cores of the machine to itself")
    config.addinivalue_line("markers", "long: takes so long that it is begun before the others")
    config.addinivalue_line("markers", "soak: takes long, and runs only where it is asked for: `-m soak`")
    hypothesis.settings.register_profile(
        "choir", max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("choir")
    if config.option.fault_seed is None:
        config.option.fault_seed = random.SystemRandom().randrange(SEEDS)
    if not _is_worker(config):
        _keep_bytecode(config)
        config.stash[_keeping_busy] = [
            subprocess.Popen([sys.executable, "-c", LOOP], preexec_fn=PREEXEC)
            for _ in range(config.option.busy)
        ]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends what kept the cores busy, and closes what llama-cpp-python opens when it is imported and leaves
    open: with warnings as errors, Python would complain of it at its end."""
    if (utils := sys.modules.get("llama_cpp._utils")) is not None:
        utils.outnull_file.close()
        utils.errnull_file.close()
    for process in config.stash.get(_keeping_busy, []):
        process.kill()
        process.wait()


def pytest_report_header(config: pytest.Config) -> str:
    """The seed, so that a run can be repeated."""
    return f"fault seed: {config.option.fault_seed}; cores kept busy: {config.option.busy}"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """The seed once more where it is looked for: below the failures."""
    if exitstatus == pytest.ExitCode.TESTS_FAILED:
        terminalreporter.write_line(
            f"the same moments of faults again: --fault-seed {config.option.fault_seed}"
        )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where files are dealt out to processes, the long ones come first; the order within a file stays."""
    if _is_worker(config):
        long = {item.path for item in items if item.get_closest_marker("long") is not None}
        items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """What is collected stays until the end: it is searched for garbage neither now nor during the tests."""
    usual = gc.get_threshold()
    gc.set_threshold(RARE, *usual[1:])
    try:
        return (yield)
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)
        gc.set_threshold(*usual)


@pytest.fixture
def fault_seed(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> int:
    """The seed of this test: the same for the same `--fault-seed`, whatever runs before."""
    return zlib.crc32(f"{pytestconfig.option.fault_seed} {request.node.nodeid}".encode())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test marked `alone` waits until no other process of this run tests; the others wait for its end."""
    with ExitStack() as stack:
        if _is_worker(item.config):
            stack.enter_context(turn(_folder(), alone=item.get_closest_marker("alone") is not None))
        return (yield)


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Holds the cores of the machine: with others, or `alone`. `folder` is the same for all that take turns.

    Who waits to be alone holds the gate, so that the others cannot go on for ever before it.
    """
    with (folder / "gate").open("w") as gate, (folder / "cores").open("w") as cores:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(cores, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(gate, fcntl.LOCK_UN)
        yield


def _keep_bytecode(config: pytest.Config) -> None:
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is None or BYTECODE_FOLDER in os.environ or not os.environ.pop(NO_BYTECODE, None):
        return
    os.environ[BYTECODE_FOLDER] = str(cache.mkdir("bytecode"))


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _folder() -> Path:
    run = os.environ["PYTEST_XDIST_TESTRUNUID"]
    folder = Path(tempfile.gettempdir()) / f"choir-tests-{run}"
    folder.mkdir(exist_ok=True)
    return folder
