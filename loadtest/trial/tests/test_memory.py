"""Whether memory is flat."""

from __future__ import annotations

import os
import random
from typing import Any, cast

import pytest

from loadtest.generate.progress import Snapshot
from loadtest.trial.memory import LEAST_GROWTH_BYTES, MIB, Growth, MemoryWatch, Sample, growth
from loadtest.trial.soak import ProgressLines, own_limits

RATE = 100.0


def samples(bytes_per_s: float, seconds: int = 600, noise: int = MIB, start: int = 60 * MIB) -> list[Sample]:
    drawn = random.Random(1)
    return [
        Sample(float(at), int(start + bytes_per_s * at + drawn.uniform(-noise, noise)))
        for at in range(0, seconds, 5)
    ]


def found(taken: list[Sample], kept_bytes: float = 0.0) -> Growth:
    result = growth("services.router", 1, taken, RATE, kept_bytes)
    assert result is not None
    return result


def test_noise_is_flat() -> None:
    assert found(samples(0.0)).flat


def test_a_leak_of_half_a_kilobyte_a_request_is_seen_within_ten_minutes() -> None:
    grown = found(samples(512 * RATE))
    assert not grown.flat
    assert grown.bytes_per_request == pytest.approx(512, rel=0.05)


def test_what_a_process_is_to_keep_is_no_leak() -> None:
    assert found(samples(512 * RATE), kept_bytes=600).flat


def test_caches_that_fill_at_the_beginning_are_no_leak() -> None:
    settled = [Sample(one.at_s, one.size + min(40, int(one.at_s)) * MIB) for one in samples(0.0)]
    assert found(settled).flat


def test_a_few_samples_that_stand_out_are_no_leak() -> None:
    taken = samples(0.0)
    assert found([*taken[:-6], *(Sample(one.at_s, one.size + 100 * MIB) for one in taken[-6:])]).flat


def test_what_a_process_has_grown_and_may_grow_is_told() -> None:
    grown = found(samples(512 * RATE), kept_bytes=112)
    assert grown.grown_mib == pytest.approx(400 * RATE * 0.75 * 595 / MIB, rel=0.05)
    assert grown.limit_mib == pytest.approx(8, rel=0.3)


def test_a_process_that_is_started_again_in_the_middle_is_named() -> None:
    own = os.getpid()
    there = {own: "services.router"}
    watch = MemoryWatch(lambda: there, 1.0)
    watch.look()
    assert watch.ended == []
    there = {os.getppid(): "services.router"}
    for _ in range(20):
        watch.look()
    assert watch.ended == ["services.router"] * 2
    ((name, size_mib, more_mib),) = watch.now()
    assert name == "services.router"
    assert size_mib > 0
    assert abs(more_mib) < size_mib


def test_a_soak_says_on_its_way_what_it_has_seen() -> None:
    written: list[str] = []
    watch = MemoryWatch(lambda: {os.getpid(): "services.router"}, 1.0)
    watch.look()
    lines = ProgressLines(watch, 60.0, written.append)
    counts: dict[str, Any] = {
        "sent": 9,
        "tokens": 0,
        "ttft_ms": [],
        "lag_ms": [],
    }
    for at_s, in_flight, e2e_ms in ((1.0, 4, [900.0]), (10.5, 2, [7.0]), (12.0, 1, [5.0]), (25.0, 3, [8.0])):
        shot = counts | {"at_s": at_s, "ended": 9, "failed": 3, "errors": {"overloaded": 2, "internal": 1}}
        shot |= {"in_flight": in_flight, "e2e_ms": e2e_ms}
        lines.take([cast(Snapshot, shot)])
    assert len(written) == 2
    assert written[0].startswith("10 of 60 s: 6 answered, errors: 1 internal, 2 overloaded; at most 4")
    assert "4 at once so far, 900 ms since the last line; MiB (and" in written[0]
    assert "services.router" in written[0]
    assert "4 at once so far, 8 ms since the last line; MiB (and" in written[1]
    assert own_limits(lines.most_in_flight)["services.router"][1] > LEAST_GROWTH_BYTES


def test_a_router_may_keep_room_for_as_many_as_have_waited_at_once() -> None:
    """Stalls of the machine make it larger, each longer one a little more, and that is no leak."""
    sizes = [Sample(at_s, (30 + 4 * (at_s // 20)) * MIB) for at_s in range(100)]
    for most_in_flight, flat in ((16, False), (1_000, True)):
        grown = growth("services.router", 1, sizes, RATE, *own_limits(most_in_flight)["services.router"])
        assert grown is not None and grown.flat is flat


def test_a_process_that_was_there_for_a_moment_says_nothing() -> None:
    assert growth("services.agent", 1, samples(0.0, seconds=20), RATE) is None
