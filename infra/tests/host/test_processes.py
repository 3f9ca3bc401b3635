"""Children that never outlive their parent."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEADLINE_S = 180.0
LATE = """
import os, sys, time
from infra.host.children.processes import PREEXEC
parent = os.fork()
if not parent:
    here = os.getpid()
    if not os.fork():
        while os.getppid() == here:
            time.sleep(0.001)
        PREEXEC()
        print("it goes on", flush=True)
        time.sleep(3600)
    os._exit(0)
os.waitpid(parent, 0)
"""
"""A child that comes to say that it ends with its parent when its parent has gone."""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: prctl(2)")
def test_a_child_whose_parent_has_gone_already_ends_at_once() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    assert (ran.stdout, ran.stderr) == ("", "")
