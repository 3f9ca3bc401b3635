"""What was used within the last minute, by the second in which it was. Pure."""

from __future__ import annotations

MINUTE_S = 60

Used = dict[int, int]
"""How much in which second (Unix time)."""


def within(used: Used, now_s: float) -> Used:
    """What is not a minute old, to the second."""
    return {second: count for second, count in used.items() if second + MINUTE_S > int(now_s)}


def with_more(used: Used, count: int, now_s: float) -> Used:
    """The same, and so much now."""
    return {**used, int(now_s): used.get(int(now_s), 0) + count} if count else used


def room_after_s(used: Used, most: int, now_s: float) -> float:
    """In how many seconds so much of what was used is a minute old that it is less than `most`."""
    taken = sum(used.values())
    for second, count in sorted(used.items()):
        taken -= count
        if taken < most:
            return max(1.0, second + MINUTE_S - now_s)
    return float(MINUTE_S)


def read_used(written: bytes | None) -> Used:
    """From `1700000000:12 1700000001:7`."""
    parts = (part.split(b":") for part in (written or b"").split())
    return {int(second): int(count) for second, count in parts}


def written_used(used: Used) -> bytes:
    """The same, written."""
    return b" ".join(b"%d:%d" % one for one in sorted(used.items()))
