"""The health check of a host: real HTTP servers in the place of services."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infra.host.healthy import faults, main, ready_address
from infra.host.state import Claim, running_here
from services.client.finding.local_mesh import STATE_VARIABLE, RunningMesh, state_folder


class Ready(BaseHTTPRequestHandler):
    """A service that is ready."""

    status, body = 200, b"{}"

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/ready" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class Starting(Ready):
    """A service that is not ready yet."""

    status, body = 503, b"starting"


@pytest.fixture
def served() -> Iterator[dict[type[Ready], str]]:
    servers = {kind: HTTPServer(("127.0.0.1", 0), kind) for kind in (Ready, Starting)}
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers.values()]
    for thread in threads:
        thread.start()
    yield {kind: ready_address("127.0.0.1", server.server_port) for kind, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()
    for thread in threads:
        thread.join()


def mesh_of(*health: str) -> RunningMesh:
    return RunningMesh(url="nats://x:1", pid=1, process_started_at_s=0.0, health=health)


def test_a_host_whose_services_are_ready_has_no_fault(served: dict[type[Ready], str]) -> None:
    assert faults(mesh_of(served[Ready], served[Ready])) == []


def test_what_a_service_says_that_is_not_ready_is_told(served: dict[type[Ready], str]) -> None:
    (fault,) = faults(mesh_of(served[Ready], served[Starting]))
    assert served[Starting] in fault and "503: starting" in fault


def test_a_service_that_does_not_answer_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it listens to nobody
        (fault,) = faults(mesh_of(ready_address("127.0.0.1", taken.getsockname()[1])))
    assert "does not answer" in fault and "refused" in fault


def test_without_a_mesh_or_a_port_the_way_out_is_told() -> None:
    assert "no mesh runs here" in faults(None)[0]
    assert "CHOIR_HEALTH__PORT" in faults(mesh_of())[0]


@pytest.mark.parametrize(
    ("host", "asked"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("fe80::1", "[fe80::1]"), ("here", "here")]
)
def test_an_address_to_listen_on_everywhere_is_asked_on_loopback(host: str, asked: str) -> None:
    assert ready_address(host, 8080) == f"http://{asked}:8080/health/ready"


def test_the_check_reads_what_the_mesh_wrote_down(
    served: dict[type[Ready], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    assert main() == 1
    claim = Claim(state_folder())
    try:
        claim.publish(running_here("nats://127.0.0.1:4222", health=(served[Ready],)))
        assert main() == 0
        claim.publish(running_here("nats://127.0.0.1:4222", health=(served[Ready], served[Starting])))
        assert main() == 1
        assert "503" in capsys.readouterr().out
    finally:
        claim.release()
