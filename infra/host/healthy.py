"""Says whether all that `choir up` runs on this host is ready: the health check of a container or a unit.

`python -m infra.host.healthy` prints a line for each process that is not, and exits with 1 then; with 0 if
all are. `[health] port` has to be set (CHOIR_HEALTH__PORT). The check asks the processes alone, not the
mesh: a host is not unhealthy because another one is.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from services.chassis.nats.connecting.address import reached_from_here
from services.client.finding.local_mesh import RunningMesh, running_mesh, state_folder

DEADLINE_S = 5.0


def ready_address(host: str, port: int) -> str:
    """Where a process that listens for health checks at `host` and `port` is asked whether it is ready."""
    return f"http://{reached_from_here(host)}:{port}/health/ready"


def faults(mesh: RunningMesh | None) -> list[str]:
    """One line for each thing that is wrong with the mesh of this host; none if all is ready."""
    if mesh is None:
        return [f"no mesh runs here, or it is still starting (state folder {state_folder()})"]
    if not mesh.health:
        return ["no process has a health port: set port in section [health], or CHOIR_HEALTH__PORT"]
    with ThreadPoolExecutor(len(mesh.health)) as asked:
        return [fault for fault in asked.map(_fault, mesh.health) if fault is not None]


def _fault(address: str) -> str | None:
    """What is wrong with the process that answers at `address`; None if it is ready."""
    try:
        # No proxy: the addresses are of this host.
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=DEADLINE_S).close()
    except urllib.error.HTTPError as error:
        with error:
            return f"{address} says {error.code}: {error.read(512).decode(errors='replace')}"
    except OSError as error:
        return f"{address} does not answer: {getattr(error, 'reason', error)}"
    return None


def main() -> int:
    """The exit code."""
    found = faults(running_mesh())
    for fault in found:
        sys.stdout.write(f"{fault}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
