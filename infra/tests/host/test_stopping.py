"""Who ends a process waits for longer than the process needs to give its work back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.broker import broker
from infra.host import state
from infra.host.running import services
from services.chassis.process.stopping import DRAIN_PATIENCE_S, ENDPOINTS_PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
COMPOSE_FILE, UNIT_FILE = ROOT / "compose.yaml", ROOT / "infra" / "deploy" / "systemd" / "choir.service"
SERVICE_STOPS_WITHIN_S = ENDPOINTS_PATIENCE_S + DRAIN_PATIENCE_S


def test_a_service_that_drains_is_not_killed_before_it_gives_its_work_back() -> None:
    assert services.STOP_DEADLINE_S > SERVICE_STOPS_WITHIN_S


def test_choir_down_waits_for_the_services_and_for_the_broker() -> None:
    assert state.STOP_DEADLINE_S > services.STOP_DEADLINE_S + broker.STOP_DEADLINE_S


def test_neither_a_container_nor_a_unit_is_killed_before_its_services_give_their_work_back() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    composed = yaml.safe_load(COMPOSE_FILE.read_text())
    periods = [service.get("stop_grace_period") for service in composed["services"].values()]
    stated = [float(period.removesuffix("s")) for period in periods if period is not None]
    (unit,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT_FILE.read_text(), re.MULTILINE)
    assert stated and min(*stated, float(unit)) > state.STOP_DEADLINE_S, "each runs `choir up`"
