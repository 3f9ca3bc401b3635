"""What `choir batch` takes on the client's side: memory while it reads 10,000 documents, and its pace.

The models answer at once, so what is measured is the client, the router and the broker. Every document has
a few pages; all questions and answers go over a real broker with synced streams.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from loadtest.bench.processes import bench_mesh
from loadtest.bench.report import Report, at_most

DOCUMENTS = 10_000
DOCUMENT_BYTES = 6_000
MODEL = "alpha"
SLOTS = 64
REPLY = "One paragraph that answers. " * 20
SAMPLE_EVERY_S = 0.1
MEGABYTE = 1e6
MEMORY_TARGET_MB = 200.0
SENTENCE = "The choir answers as one, whichever of its voices may have fallen silent. "


def run() -> Report:
    """Measures, and holds the client's memory against its target."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(Path(folder)))


async def measure(folder: Path) -> Report:
    """One batch over a mesh of its own."""
    documents = write_documents(folder / "documents")
    async with bench_mesh(folder / "broker", [MODEL]) as mesh:
        mesh.spawn("services.router")
        mesh.spawn("services.aggregator")
        mesh.spawn_agent(MODEL, reply=REPLY, slots=SLOTS)
        await mesh.wait_ready([MODEL])
        started_s = time.perf_counter()
        peak_bytes = await asyncio.to_thread(run_batch, mesh.url, documents, folder / "results.json")
        wall_s = time.perf_counter() - started_s
    results = json.loads((folder / "results.json").read_text())
    raw = {
        "documents": DOCUMENTS,
        "answered": results["successful"],
        "wall_s": wall_s,
        "tasks_per_s": results["tasks_per_second"],
        "client_peak_mb": peak_bytes / MEGABYTE,
    }
    targets = (
        at_most("client_peak_mb", peak_bytes / MEGABYTE, MEMORY_TARGET_MB),
        at_most("unanswered", DOCUMENTS - results["successful"], 0),
    )
    return Report(bench="batch", raw=raw, targets=targets)


def write_documents(folder: Path) -> Path:
    """Texts that differ, so that none of them is answered in the place of another."""
    folder.mkdir()
    body = SENTENCE * (DOCUMENT_BYTES // len(SENTENCE))
    for number in range(DOCUMENTS):
        (folder / f"{number:05}.txt").write_text(f"Document {number}.\n\n{body}")
    return folder


def run_batch(url: str, documents: Path, results: Path) -> int:
    """Runs `choir batch` in a process of its own; the most resident memory that it had, in bytes."""
    command = ("batch", "-i", str(documents), "--preset", "summary", "-o", str(results), "-m", MODEL)
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli", *command],
        env={**os.environ, "CHOIR_MESH__URL": url},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watched, peak_bytes = psutil.Process(process.pid), 0
    try:
        while process.poll() is None:
            peak_bytes = max(peak_bytes, watched.memory_info().rss)
            time.sleep(SAMPLE_EVERY_S)
    finally:
        process.kill()
        process.wait()
    return peak_bytes
