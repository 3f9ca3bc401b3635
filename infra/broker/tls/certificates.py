"""TLS of this host's broker: which files it shows, and their renewal while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from infra.broker.cluster import own_server
from infra.broker.tls.authority import Authority, TlsFiles, now
from infra.broker.tls.names import certificate_names, reachable_addresses
from infra.broker.tls.own_files import check_own_files
from infra.settings import HostSettings
from schemas.errors import ConfigurationError
from services.chassis.nats.connecting.address import host_and_port, is_loopback

FOLDER = "tls"
LOOK_INTERVAL_S = 3600.0


def trust_of(files: TlsFiles | None) -> dict[str, Any]:
    """What `[mesh]` of this host's own clients says of the certificate of its broker."""
    if files is None:
        return {}
    return {"ca": None if files.ca is None else str(files.ca), "tls_first": True}


class BrokerCertificates:
    """The files of the broker of this host: the user's own, or those of the mesh's authority in the state
    folder.

    `files` is None on loopback, where nobody else comes. `addresses` are those of this host that its
    certificate is for.
    """

    def __init__(self, settings: HostSettings, state: Path, authority: Authority | None = None) -> None:
        self._settings = settings
        self.addresses: tuple[str, ...] = ()
        own = settings.broker.tls
        self._authority = authority or Authority(state / FOLDER)
        self.files: TlsFiles | None = None
        if own is not None:
            certificate, key = (settings.folder / path.expanduser() for path in (own.certificate, own.key))
            ca = None if own.ca is None else settings.folder / own.ca.expanduser()
            self.files = TlsFiles(certificate, key, ca)
            self._authority_used = False
        else:
            self._authority_used = not is_loopback(settings.broker.host)
            self.files = self._authority.files if self._authority_used else None

    @property
    def _said(self) -> tuple[str, ...]:
        """The names in `[broker] addresses`, without their ports."""
        return tuple(host_and_port(address)[0] for address in self._settings.broker.addresses)

    @property
    def name(self) -> str | None:
        """The host for the URL of this host's own clients, where a certificate of the user's own is for
        it."""
        return self._said[0] if self._settings.broker.tls is not None and self._said else None

    def prepare(self) -> bool:
        """Makes what is missing, renews what is about to end; whether anything is new. ConfigurationError if
        that cannot be."""
        broker = self._settings.broker
        self.addresses = () if self._settings.broker.tls else reachable_addresses(broker.host)
        own = (own_server(broker.servers, broker.host, broker.port).host,) if broker.cluster else ()
        if self._authority_used:
            said = (*self.addresses, *self._said, *own)
            return self._authority.renew(certificate_names(broker.host, said))
        if self.files is not None:
            check_own_files(self.files, (*self._said, *own), now())
        return False

    async def keep(self, reload: Callable[[], Awaitable[None]], say: Callable[[str], None]) -> None:
        """Renews, and has the broker read again what is new, for ever. The user's own are read again when
        they have changed."""
        seen = self._changed_at()
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                new = self.prepare()
                if new or self._changed_at() != seen:
                    await reload()
                    seen = self._changed_at()
                    say("the broker has a new certificate")
            except ConfigurationError as error:
                say(error.message)

    def _changed_at(self) -> tuple[float, ...]:
        files = () if self.files is None else (self.files.certificate, self.files.key)
        return tuple(path.stat().st_mtime if path.is_file() else 0.0 for path in files)
