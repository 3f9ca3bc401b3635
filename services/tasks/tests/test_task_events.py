"""What an agent tells of its tasks."""

from __future__ import annotations

import pytest

from infra.testing.mesh import generate
from schemas.commands import Waypoint
from services.tasks.task_events import topology_of


@pytest.mark.parametrize(
    ("slip", "topology"), [((), "single"), (("aggregator",), "ensemble"), (("summarizer",), "chain")]
)
def test_a_task_knows_how_its_request_travels(slip: tuple[Waypoint, ...], topology: str) -> None:
    assert topology_of(generate(routing_slip=slip)) == topology
