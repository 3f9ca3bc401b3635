"""Who ends a process waits for longer than the process needs to give its work back."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.broker import broker
from infra.host import state
from infra.host.running import services
from services.chassis.process.stopping import DRAIN_PATIENCE_S, ENDPOINTS_PATIENCE_S

COMPOSE_FILE = Path(__file__).resolve().parents[3] / "compose.yaml"
SERVICE_STOPS_WITHIN_S = ENDPOINTS_PATIENCE_S + DRAIN_PATIENCE_S


def test_a_service_that_drains_is_not_killed_before_it_gives_its_work_back() -> None:
    assert services.STOP_DEADLINE_S > SERVICE_STOPS_WITHIN_S


def test_choir_down_waits_for_the_services_and_for_the_broker() -> None:
    assert state.STOP_DEADLINE_S > services.STOP_DEADLINE_S + broker.STOP_DEADLINE_S


def test_a_container_is_not_killed_before_its_service_gives_its_work_back() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    composed = yaml.safe_load(COMPOSE_FILE.read_text())
    periods = [service.get("stop_grace_period") for service in composed["services"].values()]
    stated = [float(period.removesuffix("s")) for period in periods if period is not None]
    assert stated and min(stated) > SERVICE_STOPS_WITHIN_S
