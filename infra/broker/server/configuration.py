"""The configuration of the embedded broker: a file that is written at every start and every reload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from infra.broker.access.accounts import one_account
from infra.broker.cluster import Cluster
from infra.broker.tls.authority import TlsFiles
from schemas.broker import catalog

HEADROOM = 1.25
MEMORY_HEADROOM_BYTES = 64 * catalog.MIB

HANDSHAKE_PATIENCE = "500ms"
"""Clients of ours begin with TLS at once: then nobody between can talk them into plain text. Others wait to
be told by the broker that they are to begin, and are told after this time."""
TLS_TIMEOUT_S = 10
"""So long a handshake may take: the server's own two seconds are little for a busy host."""
AUTH_TIMEOUTS_S = (10, 11)
"""So long a client may take to say who it is."""

CONFIG = """\
# Written at every start by infra/broker/server/configuration.py.
server_name: {server_name}
listen: {listen}
max_payload: {max_payload}
logfile: {log}
logfile_size_limit: 10MB
logfile_max_num: 3
jetstream {{
  store_dir: {store}
  # An acknowledged message is on the disk: the default fsyncs every two minutes.
  sync_interval: always
  max_file_store: {max_file_store}
  max_memory_store: {max_memory_store}
}}
{more}
"""


def reserved_bytes(storage: Literal["file", "memory"]) -> int:
    """What the streams and buckets of the catalog may hold together: JetStream reserves it."""
    specs: tuple[catalog.StreamSpec | catalog.BucketSpec, ...] = (*catalog.STREAMS, *catalog.BUCKETS)
    return sum(spec.max_bytes for spec in specs if spec.storage == storage)


def authority(host: str, port: int) -> str:
    """Host and port as they stand in an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls_block(files: TlsFiles) -> str:
    block = {"cert_file": str(files.certificate), "key_file": str(files.key), "min_version": "1.2"}
    patience = {"timeout": TLS_TIMEOUT_S, "handshake_first": HANDSHAKE_PATIENCE}
    return f"tls: {json.dumps({**block, **patience})}"


class Configuration:
    """What one server is told. `accounts` is the block of accounts.py; without it all are in one account."""

    def __init__(
        self,
        host: str,
        *,
        max_payload: int,
        user: str | None,
        password: str | None,
        accounts: str | None,
        tls: TlsFiles | None,
        cluster: Cluster | None,
        more: str,
    ) -> None:
        self._accounts = accounts
        self._host = host
        self._max_payload = max_payload
        self._auth_timeout_s = AUTH_TIMEOUTS_S[0]
        self._more = more
        if user is not None:
            credentials = f"user: {json.dumps(user)}, password: {json.dumps(password or '')}"
            self._more += f"\nauthorization {{ {credentials} }}"
        if tls is not None:
            self._more += f"\n{_tls_block(tls)}"
        if cluster is not None:
            self._more += f"\n{cluster.block(host, tls)}"

    def exchange(self, accounts: str) -> None:
        """From the next `write` on others may come in."""
        self._accounts = accounts

    def exchange_timeout(self) -> None:
        """Something of the authorization is another from the next `write` on, and nothing that matters."""
        self._auth_timeout_s = next(one for one in AUTH_TIMEOUTS_S if one != self._auth_timeout_s)

    @property
    def has_accounts(self) -> bool:
        """Whether the server tells tenants apart."""
        return self._accounts is not None

    def write(self, directory: Path, server_name: str, port: int, log: Path) -> Path:
        """Writes the file for a server that keeps its store in `directory`; its path."""
        path = directory / "nats.conf"
        path.touch(0o600)  # it may hold a password
        path.write_text(
            CONFIG.format(
                server_name=json.dumps(server_name),
                listen=json.dumps(authority(self._host, port)),
                max_payload=self._max_payload,
                log=json.dumps(str(log)),
                store=json.dumps(str(directory / "store")),
                max_file_store=int(reserved_bytes("file") * HEADROOM),
                max_memory_store=reserved_bytes("memory") + MEMORY_HEADROOM_BYTES,
                more=f"{self._who()}\n{self._more}",
            )
        )
        return path

    def _who(self) -> str:
        """Who may come in, and how soon they have to say who they are."""
        if self._accounts is None:
            return one_account()
        return f"{self._accounts}\nauthorization: {{ timeout: {self._auth_timeout_s} }}"
