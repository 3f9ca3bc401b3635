"""A server that speaks as much of the hub's protocol as its own library asks for: a fake, for no hub can be
reached by tests. It can be told to do what a hub should not."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

REVISION = "0123456789abcdef0123456789abcdef01234567"
PIECE_BYTES = 65_536
Fault = Literal["", "html", "elsewhere", "more", "other", "vanishes", "page_for_metadata", "leads_on"]


class HubServer(ThreadingHTTPServer):
    """`files` of one repository. `fault` is what it does wrong; `asked` is with which byte of a file each
    request began, `served` are the byte ranges that it has sent, one every `pace_s`, and `tokens` what was
    shown to it. Before byte `stops_at` of a file it waits until `goes_on` is set. One that `leads_on` says
    that files are at `leads_to`."""

    daemon_threads = True

    def __init__(self, repository: str, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = repository
        self.files = files
        self.fault: Fault = ""
        self.leads_to = ""
        self.asked: list[tuple[str, int]] = []
        self.served: list[tuple[str, int, int]] = []
        self.pace_s = 0.0
        self.tokens: set[str] = set()
        self.stops_at: int | None = None
        self.goes_on = threading.Event()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def metadata(self) -> dict[str, Any]:
        """What the hub says of the repository."""
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": "1" * 40,
                "lfs": {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 134,
                },
            }
            for name, content in self.files.items()
        ]
        return {
            "id": self.repository,
            "sha": REVISION,
            "siblings": siblings,
            "tags": [],
            "private": False,
            "cardData": {"license": "apache-2.0"},
        }


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        hub = self.server
        hub.tokens.add(self.headers.get("authorization", ""))
        if self.path.startswith(f"/api/models/{hub.repository}"):
            page = hub.fault == "page_for_metadata"
            body = b"<html>log in</html>" if page else json.dumps(hub.metadata()).encode()
            self._send(200, body, "text/html" if page else "application/json")
            return
        prefix = f"/{hub.repository}/resolve/{REVISION}/"
        name = self.path.removeprefix(prefix)
        if not self.path.startswith(prefix) or name not in hub.files:
            self._send(404, b"{}", "application/json")
        elif hub.fault == "html":
            self._send(200, b"<html>log in</html>", "text/html; charset=utf-8")
        elif hub.fault == "elsewhere":
            self._send(302, b"", "text/plain", location="http://169.254.169.254/latest/secrets")
        elif hub.fault == "leads_on":
            self._send(302, b"", "text/plain", location=hub.leads_to + self.path)
        else:
            self._file(name, hub.files[name])

    def _file(self, name: str, content: bytes) -> None:
        hub = self.server
        said = len(content)
        if hub.fault == "other":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if hub.fault == "more":
            content += b"more"
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        start = int(asked[1]) if asked else 0
        hub.asked.append((name, start))
        body = content[start:]
        self.send_response(206)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {start}-{said - 1}/{said}")
        self.end_headers()
        end = len(body) // 2 if hub.fault == "vanishes" else len(body)
        for at in range(0, end, PIECE_BYTES):
            if hub.stops_at is not None and start + at >= hub.stops_at:
                hub.goes_on.wait()
            time.sleep(hub.pace_s)
            piece = body[at : min(at + PIECE_BYTES, end)]
            self.wfile.write(piece)
            hub.served.append((name, start + at, start + at + len(piece)))
        if hub.fault == "vanishes":
            hub.fault = ""
            self.close_connection = True
            self.connection.close()

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def hub_server(repository: str, files: dict[str, bytes]) -> Iterator[HubServer]:
    """One that runs."""
    server = HubServer(repository, files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.goes_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
