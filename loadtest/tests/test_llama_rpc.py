"""llama.cpp RPC as a peer: its command lines, what its bench says, what is told where it cannot be built."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from infra.broker.local_cluster import free_port
from loadtest.peers import __main__ as peers
from loadtest.peers.environments import CannotStart
from loadtest.peers.llama_rpc import in_turns
from loadtest.peers.llama_rpc.batched_bench import RpcNodes, Work, bench_command, rate, server_command
from loadtest.peers.llama_rpc.build import (
    Programs,
    build_command,
    configure_command,
    download_command,
    require,
)
from loadtest.peers.llama_rpc.in_turns import HALVES, RATIO, WHOLE, Rates, raw, require_cores, targets
from loadtest.peers.servers import listener

RECORDED = Path(__file__).parent / "golden" / "batched_bench.txt"
"""What `llama-batched-bench` of llama-cpp-python 0.3.36 wrote on stdout: `-npp 40 -ntg 24 -npl 1,2,4`."""
PROGRAMS = Programs(Path("/built/ggml-rpc-server"), Path("/built/llama-batched-bench"), "0.3.36")
NODES = RpcNodes(PROGRAMS, cores=(0, 1), layers=(12, 12), ports=(7001, 7002))


def test_each_rate_is_read_from_what_the_bench_wrote() -> None:
    output = RECORDED.read_text()
    found = {streams: rate(output, Work(streams, prompt_tokens=40, tokens=24)) for streams in (1, 2, 4)}
    assert found == {1: 9.401766, 2: 15.628459, 4: 23.509844}


def test_work_that_the_bench_left_out_is_an_error_and_no_rate() -> None:
    output = RECORDED.read_text()
    for work in (Work(8, 40, 24), Work(4, 41, 24), Work(4, 40, 25)):
        with pytest.raises(CannotStart, match=f"told of no run like .*'pl': {work.streams}"):
            rate(output, work)
    with pytest.raises(CannotStart, match="told of no run"):
        rate("", Work(1, 40, 24))


def test_a_node_is_one_core_and_one_thread_on_loopback() -> None:
    line = " ".join(server_command(PROGRAMS, core=1, port=7002))
    assert line == (
        "taskset -c 1 /built/ggml-rpc-server --host 127.0.0.1 --port 7002 --device CPU --threads 1"
    )


async def test_a_listener_is_waited_for_and_one_that_ends_is_told_with_its_last_words() -> None:
    port = free_port()
    async with listener((sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)), port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
    with pytest.raises(CannotStart, match="it ended: no such device"):
        async with listener(("sh", "-c", "echo no such device; exit 1"), port):
            pass


def test_the_bench_has_the_pipelines_cut_and_room_for_every_stream() -> None:
    line = " ".join(bench_command(NODES, Path("/m.gguf"), Work(16, 40, 32), most_rows=None))
    assert line == (
        "taskset -c 0,1 /built/llama-batched-bench --model /m.gguf --rpc 127.0.0.1:7001,127.0.0.1:7002 "
        "--gpu-layers 25 --tensor-split 12,13 --threads 1 --ctx-size 4096 -npp 40 -ntg 32 -npl 16,1 "
        "--output-format jsonl"
    )
    halves = bench_command(NODES, Path("/m.gguf"), Work(16, 250, 32), most_rows=8)
    assert halves[-2:] == ["--ubatch-size", "8"]
    assert halves[halves.index("--ctx-size") + 1] == str(16 * 512)


def test_it_is_built_from_the_packages_source_with_rpc_and_without_what_nothing_needs() -> None:
    folder = Path("/kept")
    told = " ".join(download_command(Path("/pip"), folder, "0.3.36"))
    assert told == (
        "/pip/bin/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest /kept "
        "llama-cpp-python==0.3.36"
    )
    configured = configure_command(folder)
    assert configured[:4] == ["nice", "-n", "19", "cmake"]
    assert {"-DGGML_RPC=ON", "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_SERVER=OFF"} <= set(configured)
    assert " ".join(build_command(folder)) == (
        "nice -n 19 cmake --build /kept/build --target ggml-rpc-server llama-batched-bench"
    )


def test_what_is_lacking_is_told_by_name_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "COMPARISONS", {**peers.COMPARISONS, "hop": lambda _: _figures()})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("taskset", "make", "cc"):
        (programs / name).symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    report = asyncio.run(peers.run(["rpc", "hop"]))
    assert report.raw["rpc: llama.cpp rpc"] == "could not be started: not on the path: cmake, c++"
    assert report.raw["hop: choir"] == {"p50_ms": 1.0} and report.targets == ()
    assert report.load_before_1m >= 0.0
    with pytest.raises(CannotStart, match=r"^not on the path: taskset, nice$"):
        monkeypatch.setenv("PATH", str(tmp_path))
        require(("taskset", "nice"))


async def _figures() -> in_turns.Raw:
    return {"choir": {"p50_ms": 1.0}}


def test_a_node_without_a_core_is_told() -> None:
    require_cores({0, 1, 2})
    with pytest.raises(CannotStart, match="core 1 may not be used here"):
        require_cores({0, 2, 3})


def test_the_ratio_is_of_rounds_and_over_the_faster_way_and_a_missed_target_is_told() -> None:
    ours = {1: [30.0, 33.0], 2: [40.0, 40.0], 4: [60.0, 84.0]}
    whole = {1: [30.0, 30.0], 2: [40.0, 40.0], 4: [50.0, 52.0]}
    halves = {2: [20.0, 80.0], 4: [60.0, 60.0]}
    found = Rates(
        defaultdict(list, ours), {WHOLE: defaultdict(list, whole), HALVES: defaultdict(list, halves)}, 2
    )
    figures = raw(found, PROGRAMS)
    assert figures[RATIO] == {"1": pytest.approx(1.05), "2": 1.25, "4": pytest.approx(1.2)}
    assert figures[f"llama.cpp rpc, {HALVES}"] == {"tokens_per_s_at_2": 50.0, "tokens_per_s_at_4": 60.0}
    told = {target.name: (target.target, target.met) for target in targets(figures)}
    assert told == {"choir_over_llama_rpc_1": (1.0, True), "choir_over_llama_rpc_4": (1.4, False)}
    assert targets({"llama.cpp rpc": "could not be started: not on the path: cmake"}) == ()
