"""Which files a request passes: what is noted in a process, and on which floor it stands."""

from __future__ import annotations

from loadtest.bench.way import Recorder, counted, in_all
from schemas import subjects


def test_what_is_called_is_noted_while_somebody_listens_and_only_then() -> None:
    recorder = Recorder()
    recorder.install()
    try:
        subjects.result("r1")
        recorder.begin()
        subjects.owner_of("r1")
        called = recorder.end()
        subjects.result("r1")
    finally:
        recorder.remove()
    assert called == {"schemas/subjects.py": ["owner_of"]}
    assert recorder.end() == called


def test_what_did_not_run_for_every_request_is_not_on_the_way() -> None:
    once = {"a.py": ["f", "g"], "lease.py": ["renew"]}
    assert in_all([once, {"a.py": ["g", "h"]}]) == {"a.py": ["g"]}


def test_the_floors_that_every_way_passes_are_counted_apart() -> None:
    called = {
        "client": {"services/client/client.py": ["Choir.ask"]},
        "router": {
            "services/router/endpoints/handlers.py": ["Handlers.ask"],
            "schemas/subjects.py": ["door"],
        },
        "aggregator": {
            "services/chassis/telemetry/events.py": ["EventLog.publish"],
            "schemas/subjects.py": ["answer"],
        },
        "agent": {
            "services/engine/engine.py": ["Engine.submit"],
            "services/chassis/nats/pull.py": ["PullSubscription.pull"],
        },
    }
    assert counted(called) == {
        "client": {"services/client/client.py": "client 1"},
        "way": {"services/router/endpoints/handlers.py": "router 1"},
        "schemas": {"schemas/subjects.py": "router 1, aggregator 1"},
        "telemetry": {"services/chassis/telemetry/events.py": "aggregator 1"},
        "engine": {"services/engine/engine.py": "agent 1"},
        "services/chassis": {"services/chassis/nats/pull.py": "agent 1"},
    }
