"""A start searches no garbage, and a service that runs does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import gc, json
before, searched = gc.get_threshold(), gc.get_stats()[0]["collections"]
import services.{name}.__main__
started = gc.get_stats()[0]["collections"] - searched
from services.chassis.process.garbage import search_as_usual
search_as_usual()
print(json.dumps([started, gc.get_threshold() == before, gc.get_freeze_count() > 10_000]))
"""


@pytest.mark.parametrize("name", ["router", "cli"])
def test_imports_are_not_searched_for_garbage_and_it_is_searched_as_usual_afterwards(name: str) -> None:
    told = subprocess.check_output([sys.executable, "-c", PROGRAM.format(name=name)])
    searches, usual, frozen = json.loads(told)
    assert searches <= 1 and usual and frozen
