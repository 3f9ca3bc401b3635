"""What a process may use of its machine, inside and outside of control groups."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from services.chassis.process import limits

MIB = 2**20


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as the kernel shows them, which cannot be had here in both versions."""
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "OWN_CGROUPS", tmp_path / "own")
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


def test_without_limits_all_of_the_machine_may_be_used(groups: Path, eight_cores: None) -> None:
    assert limits.cores() == 8
    assert limits.memory_total_bytes() == psutil.virtual_memory().total


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("250000 100000", 3), ("10000 100000", 1), ("", 8)]
)
def test_a_quota_of_version_two_counts_in_cores(groups: Path, quota: str, cores: int) -> None:
    write(groups, {"own": "0::/\n", "cgroup/cpu.max": quota})
    assert limits.cores() == cores


@pytest.mark.usefixtures("eight_cores")
def test_the_tightest_of_the_groups_around_a_process_holds(groups: Path) -> None:
    write(
        groups,
        {
            "own": "0::/system.slice/choir.service\n",
            "cgroup/system.slice/cpu.max": "200000 100000",
            "cgroup/system.slice/choir.service/cpu.max": "400000 100000",
            "cgroup/system.slice/memory.max": f"{64 * MIB}",
            "cgroup/system.slice/choir.service/memory.max": "max",
        },
    )
    assert limits.cores() == 2
    assert limits.memory_total_bytes() == 64 * MIB


@pytest.mark.usefixtures("eight_cores")
def test_a_container_under_version_one_sees_its_own_group_as_the_root(groups: Path) -> None:
    write(
        groups,
        {
            "own": "4:memory:/docker/0123\n2:cpu,cpuacct:/docker/0123\n0::/\n",
            "cgroup/cpu/cpu.cfs_quota_us": "150000",
            "cgroup/cpu/cpu.cfs_period_us": "100000",
            "cgroup/memory/memory.limit_in_bytes": f"{32 * MIB}",
            "cgroup/memory/memory.usage_in_bytes": f"{30 * MIB}",
            "cgroup/memory/memory.stat": f"inactive_file {MIB}\ntotal_inactive_file {4 * MIB}\n",
        },
    )
    assert limits.cores() == 2
    assert limits.memory_total_bytes() == 32 * MIB
    assert limits.memory_available_bytes() == 6 * MIB


@pytest.mark.usefixtures("eight_cores")
def test_a_group_of_version_one_without_a_quota_limits_nothing(groups: Path) -> None:
    write(
        groups,
        {
            "own": "2:cpu:/\n",
            "cgroup/cpu/cpu.cfs_quota_us": "-1",
            "cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert limits.cores() == 8


def test_files_of_this_machine_can_be_read() -> None:
    assert 1 <= limits.cores() <= (os.cpu_count() or 1)
    assert 0 < limits.memory_available_bytes() <= limits.memory_total_bytes()
