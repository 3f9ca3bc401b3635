"""What of a machine this process may use: its cores and its memory, within the limits of its control groups.

A container or a systemd unit is limited by control groups, of which neither `os.cpu_count` nor psutil knows:
both tell of the whole host. The files are described in the Linux kernel's documentation, "Control Group v2"
and "Control Groups version 1". Elsewhere than on Linux there is no such limit.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
INACTIVE = ("inactive_file ", "total_inactive_file ")
"""Pages of files that nobody reads now: they count as used, and can be had back."""


def cores() -> int:
    """The cores that this process may use, at least 1; a share of a core counts as a whole one."""
    here = len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1)
    quotas = (_cpu_quota(group) for group in _groups("cpu"))
    return max(1, min([here, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def memory_total_bytes() -> int:
    """The bytes of memory that there would be for this process if nothing else ran."""
    limits = (_memory_limit(group) for group in _groups("memory"))
    return min([psutil.virtual_memory().total, *(limit for limit in limits if limit is not None)])


def memory_available_bytes() -> int:
    """The bytes that this process may take before somebody has to give some back."""
    rooms = (_memory_room(group) for group in _groups("memory"))
    return max(0, min([psutil.virtual_memory().available, *(room for room in rooms if room is not None)]))


def _groups(controller: str) -> Iterator[Path]:
    """The control group of this process and those around it, as far as they can be seen from here.

    A container sees its own group as the root, whatever the path that the kernel tells.
    """
    if not OWN_CGROUPS.is_file():
        return
    for line in OWN_CGROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS  # version 2 has one tree for all controllers
        group = root / path.lstrip("/")
        while group.is_relative_to(root):
            yield group
            group = group.parent


def _cpu_quota(group: Path) -> float | None:
    """In cores; None if there is no quota. Both versions give microseconds of a period, and the period."""
    words = _read(group / "cpu.max").split() or [
        _read(group / "cpu.cfs_quota_us").strip(),
        _read(group / "cpu.cfs_period_us").strip(),
    ]
    quota, period = words if len(words) == 2 else ("", "")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _memory_limit(group: Path) -> int | None:
    return _number(group / "memory.max", group / "memory.limit_in_bytes")


def _memory_room(group: Path) -> int | None:
    """What is left of a limit; None if there is none."""
    limit, used = _memory_limit(group), _number(group / "memory.current", group / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    stat = _read(group / "memory.stat").splitlines()
    return limit - used + max((int(line.split()[1]) for line in stat if line.startswith(INACTIVE)), default=0)


def _number(*paths: Path) -> int | None:
    """The number in the first of these files that holds one."""
    texts = (_read(path).strip() for path in paths)
    return next((int(text) for text in texts if text.isdecimal()), None)


def _read(path: Path) -> str:
    """Empty if there is no such limit, or if it may not be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
