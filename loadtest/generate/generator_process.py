"""One process that generates load: `python -m loadtest.generate.generator_process ORDER`.

It says `ready` when it is connected, and starts at the time that it then reads from standard input. While
it runs it writes a line of progress twice a second, and at the end its records into a Parquet file. It has
nothing else to do, so that what it measures is not its own work. SIGTERM ends it early, with what it has.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from pathlib import Path

import uvloop

from loadtest.faults import LoadtestError
from loadtest.generate.generator import Generator
from loadtest.generate.order import Order
from loadtest.generate.progress import Progress
from loadtest.outcome.measurements import write_records
from loadtest.targets.echo_target import EchoTarget
from loadtest.targets.mesh_target import MeshTarget
from loadtest.targets.target import Target

READY = "ready"
MESH = "mesh"
PROGRESS_EVERY_S = 0.5
FAILED = 1


async def generate(order: Order) -> None:
    """Does what the order says."""
    plan = order.plan
    target: Target = (
        MeshTarget(order.url, plan.run) if order.target == MESH else EchoTarget(order.url, order.target)
    )
    generator = Generator(target, plan.ask.timeout_s, plan.open_at_once(order.process))
    await generator.open()
    # Nothing here is in a cycle, and a collection of a million records takes tens of milliseconds.
    gc.freeze()
    gc.disable()
    _say(READY)
    generator.start(float(await asyncio.to_thread(sys.stdin.readline)) - time.time())
    cpu_before_s = time.process_time()
    await _until_done_or_told_to_stop(generator, order, target)
    cpu_share = (time.process_time() - cpu_before_s) / max(1e-9, generator.clock())
    write_records(order.records, generator.records, order.process, cpu_share)


async def _until_done_or_told_to_stop(generator: Generator, order: Order, target: Target) -> None:
    reporting = asyncio.create_task(_report(generator))
    work = asyncio.create_task(_run(generator, order))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    await asyncio.wait([work])
    reporting.cancel()
    if work.cancelled():
        await target.close()
    else:
        work.result()


async def _run(generator: Generator, order: Order) -> None:
    plan = order.plan
    planned = plan.share(order.process)
    if plan.concurrency is None:
        await generator.run_open(planned)
    else:
        until_s = plan.duration_s if plan.requests is None else None
        await generator.run_closed(planned, plan.users(order.process), until_s)
    await generator.finish()


async def _report(generator: Generator) -> None:
    progress = Progress(generator)
    while True:
        await asyncio.sleep(PROGRESS_EVERY_S)
        _say(json.dumps(progress.next()))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Runs the order in the file that the command line names."""
    try:
        uvloop.run(generate(Order.read(Path(sys.argv[1]))))
    except LoadtestError as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
