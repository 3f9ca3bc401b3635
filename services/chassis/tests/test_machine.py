"""What a host looks like from inside."""

from __future__ import annotations

from services.chassis.machine import MIB, Machine, parse_gpus


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
