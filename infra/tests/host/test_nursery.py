"""A process that was forked by the nursery is as one that was started from nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.host.children.fork_server import FORKS
from infra.testing.nursery import Forked, Nursery

pytestmark = pytest.mark.skipif(not FORKS, reason="needs Linux: pidfd_open(2)")

DEADLINE_S = 180.0
PROGRAM = """
import atexit, json, os, sys
if __name__ == "__main__":
    atexit.register(print, "over")
    print(json.dumps([os.environ["COLOUR"], sys.argv[1:], os.getcwd(), os.getsid(0) == os.getpid()]))
    print(sorted(map(int, os.listdir("/proc/self/fd")))[:-1], file=sys.stderr)
    sys.exit(3)
"""
SLEEPER = "import time; print('begun', flush=True); time.sleep(3600)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are."""
    made = tmp_path_factory.mktemp("programs")
    (made / "program.py").write_text(PROGRAM)
    (made / "sleeper.py").write_text(SLEEPER)
    return made


@pytest.fixture(scope="module")
def programs(folder: Path) -> Iterator[Nursery]:
    """A nursery in that folder."""
    running = Nursery.in_folder(folder)
    yield running
    running.close()


def started(nursery: Nursery, module: str, log: Path) -> Forked:
    with log.open("wb") as output:
        return nursery.start(module, {"COLOUR": "red", "PATH": os.environ["PATH"]}, output.fileno())


def begun(nursery: Nursery, log: Path) -> Forked:
    """A process that sleeps for an hour."""
    process = started(nursery, "sleeper", log)
    end_s = time.monotonic() + DEADLINE_S
    while "begun" not in log.read_text():
        assert time.monotonic() < end_s and process.poll() is None, log.read_text()
        time.sleep(0.01)
    return process


def test_it_has_an_environment_a_session_and_an_output_of_its_own_and_ends_in_order(
    programs: Nursery, folder: Path, tmp_path: Path
) -> None:
    sleeper = begun(programs, tmp_path / "sleeper")
    process = started(programs, "program", log := tmp_path / "log")
    assert process.wait(DEADLINE_S) == 3
    sleeper.kill()

    told, descriptors, last = log.read_text().splitlines()
    assert json.loads(told) == ["red", [], str(folder), True]
    assert descriptors == "[0, 1, 2]", "nothing of the nursery's is open in it"
    assert last == "over"


def test_it_can_be_paused_waited_for_and_killed(programs: Nursery, tmp_path: Path) -> None:
    process = begun(programs, tmp_path / "log")
    process.pause()
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    process.send_signal(signal.SIGCONT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    assert process.poll() is None
    process.kill()
    assert process.wait(DEADLINE_S) == -signal.SIGKILL
    process.terminate()
    assert process.returncode == -signal.SIGKILL


def test_what_it_has_forked_ends_with_it(folder: Path, tmp_path: Path) -> None:
    nursery = Nursery.in_folder(folder)
    child = psutil.Process(begun(nursery, tmp_path / "log").pid)
    nursery.close()
    child.wait(DEADLINE_S)


def test_a_forked_fork_server_is_one_too_and_ends_with_its_connection(
    programs: Nursery, tmp_path: Path
) -> None:
    another = Nursery(programs.another())
    process = begun(another, tmp_path / "log")
    (server,) = [one for one in psutil.Process(process.pid).parents()[:1]]
    process.kill()
    assert process.wait(DEADLINE_S) == -signal.SIGKILL
    another.close()
    server.wait(DEADLINE_S)
