"""What counts as shown when a process gets no memory: it has ended, or it has said that it was refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loadtest.trial.starving import Starved, complaints, effects, no_memory, said_since

HUNGRY = """
import sys
for line in sys.stdin:
    try:
        print(len(bytearray(int(line))), flush=True)
    except MemoryError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture
def hungry() -> Iterator[subprocess.Popen[str]]:
    """A process that takes as much memory as it is told, and says what became of it."""
    with subprocess.Popen(
        [sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def takes(process: subprocess.Popen[str], count: int) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: prlimit(2) of another process")
def test_a_process_is_refused_memory_for_as_long_as_it_is_to_have_none(hungry: subprocess.Popen[str]) -> None:
    assert takes(hungry, 4_000_000) == "4000000"
    with no_memory(psutil.Process(hungry.pid)):
        assert takes(hungry, 8_000_000) == "MemoryError"
    assert takes(hungry, 8_000_000) == "8000000"


def test_the_end_of_a_process_or_its_complaint_is_shown_and_silence_is_not() -> None:
    ended, refused, silent = (
        Starved("agent", ended, said) for ended, said in ((True, 2), (False, 2), (False, 0))
    )
    assert effects([ended, refused, refused, silent]) == {"killed": 1, "refused": 2, "nothing": 1}
    assert effects([]) == {"killed": 0, "refused": 0, "nothing": 0}
    assert "nothing was shown" in str(silent)


def test_only_what_a_log_says_from_then_on_counts(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    log.write_text("MemoryError of before\n")
    said = said_since(log)
    assert complaints(said()) == 0
    with log.open("a") as file:
        file.write("agent | MemoryError\nagent | ready\nagent | OSError: [Errno 12] Cannot allocate memory\n")
    assert complaints(said()) == 2
