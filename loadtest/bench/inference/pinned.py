"""`python -m loadtest.bench.inference.pinned CORE MODULE`: a service as it would run, on one core."""

from __future__ import annotations

import os
import runpy
import sys


def main() -> None:
    """Pins this process, and all threads that it will have, then becomes the service."""
    core, module = sys.argv[1:3]
    os.sched_setaffinity(0, {int(core)})
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
