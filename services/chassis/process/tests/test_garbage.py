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
from services.chassis.process.garbage import search_while_serving
search_while_serving()
print(json.dumps([started, before, gc.get_threshold(), gc.get_freeze_count()]))
"""


@pytest.mark.parametrize("name", ["router", "cli"])
def test_imports_are_not_searched_for_garbage_and_a_service_is_searched_now_and_then(name: str) -> None:
    told = subprocess.check_output([sys.executable, "-c", PROGRAM.format(name=name)])
    searches, before, serving, frozen = json.loads(told)
    assert searches <= 1 and frozen > 10_000
    assert 10 * before[0] < serving[0] < 100_000 and serving[1:] == before[1:]
