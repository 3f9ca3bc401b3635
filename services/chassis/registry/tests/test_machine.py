"""What a host looks like from inside."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from services.chassis.registry import machine
from services.chassis.registry.machine import MIB, Machine, parse_gpus


def test_every_line_is_a_graphics_processor() -> None:
    first, second = parse_gpus("NVIDIA A10, 23028, 22515, 17\nNVIDIA T4, 15360, 15101, 0\n")
    assert (first.name, first.utilization_percent) == ("NVIDIA A10", 17.0)
    assert first.memory_total_bytes == 23028 * MIB
    assert first.memory_free_bytes == 22515 * MIB
    assert second.name == "NVIDIA T4"


def test_a_name_may_hold_commas() -> None:
    (gpu,) = parse_gpus("Quadro, the old one, 2048, 1024, 3\n")
    assert gpu.name == "Quadro, the old one"


def test_what_a_processor_does_not_tell_counts_as_nothing() -> None:
    (gpu,) = parse_gpus("Orin (nvgpu), [N/A], [N/A], [Not Supported]\n")
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes, gpu.utilization_percent) == (0, 0, 0.0)


def test_no_output_is_no_processor() -> None:
    assert parse_gpus("") == ()
    assert parse_gpus("\n") == ()


async def test_a_sample_has_this_process_and_its_host() -> None:
    sample = await Machine().sample()
    assert sample.memory_used_bytes > 10 * MIB
    assert sample.host_memory_free_bytes > 0
    assert sample.cpu_percent >= 0


def test_lines_that_are_no_processor_are_passed_over() -> None:
    (gpu,) = parse_gpus(
        "Failed to initialize NVML: Driver/library version mismatch\nNVIDIA T4, 15360, 15101, 0\n"
    )
    assert gpu.name == "NVIDIA T4"


@pytest.fixture
def path_of_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of all others in which programs are looked for."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def write_tool(folder: Path, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


@pytest.mark.parametrize("script", ["echo 'no devices were found'", "exit 9", "exec sleep 600"])
async def test_a_driver_that_fails_or_hangs_keeps_nobody_from_saying_how_the_rest_is(
    script: str, path_of_tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "GPU_DEADLINE_S", 0.5)
    write_tool(path_of_tools, script)
    async with asyncio.timeout(30):
        sample = await Machine().sample()
    assert sample.gpus == ()
    assert sample.memory_used_bytes > 0


async def test_a_tool_that_is_gone_by_now_is_no_processor(path_of_tools: Path) -> None:
    write_tool(path_of_tools, "exit 0")
    looked_for = Machine()
    (path_of_tools / "nvidia-smi").unlink()
    assert (await looked_for.sample()).gpus == ()


async def test_what_the_operating_system_refuses_to_tell_counts_as_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The edge is psutil: a /proc that cannot be read is not to be had here."""

    def refuse() -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    sample = await Machine().sample()
    assert sample.host_memory_free_bytes == 0
    assert sample.memory_used_bytes > 0
