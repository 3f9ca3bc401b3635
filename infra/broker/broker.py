"""The embedded broker: the nats-server from the wheel, with a store of its own, on loopback.

It runs as a child process: `start`, `stop`, and for fault tests `kill`, `restart`, `pause` and
`resume`. A `Broker` belongs to no event loop, so it can be started in one and stopped in another.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType

from infra.broker.cluster import Cluster
from infra.broker.server.binary import server_binary
from infra.broker.server.configuration import Configuration, authority
from infra.broker.server.log import NOT_RELOADED, RELOADED, ServerLog, greeting
from infra.broker.server.store import check_disk, check_store, move_streams
from infra.broker.tls.authority import TlsFiles
from infra.host.children.processes import PREEXEC, pause, terminate, until, writable_folder
from schemas.broker import catalog
from schemas.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0
RELOAD_DEADLINE_S = 20.0

# Below the range from which the kernel takes ports for outgoing connections: nobody slips into the
# port of a broker that is down for a moment, and no reconnecting client ever connects to itself.
FREE_PORTS = range(20_000, 32_000)
PORT_ATTEMPTS = 50


class PortTaken(ConfigurationError):
    """Raised when another process listens on the port that the broker was told to use."""


class Broker:
    """One nats-server with JetStream. `port` 0 takes a free one, which stays the same over restarts.

    `directory` holds its configuration, its log and its store. `more_config` is appended to the
    configuration (users and permissions, for example). `accounts` is the block of accounts.py; without
    it all are in one account, clients as the tenant `local`. With `tls` nobody speaks to it in plain text;
    `name` is the host in its URL, where the certificate is not for the address that it listens at.
    With `cluster` it is one of several servers, and
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
        self._cluster = cluster
        self._config = Configuration(
            host,
            max_payload=max_payload,
            user=user,
            password=password,
            accounts=accounts,
            tls=tls,
            cluster=cluster,
            more=more_config,
        )
        self._prepare = prepare
        self._process: subprocess.Popen[bytes] | None = None
        self._log = ServerLog(directory)

    @property
    def url(self) -> str:
        """Where clients connect; known once the broker has been started."""
        scheme = "nats" if self.tls is None else "tls"
        return f"{scheme}://{authority(self._name or self.reachable_host, self.port)}"

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
        return self._log.path

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
        self._log = ServerLog(self.directory)
        check_disk(self.directory)
        if self._config.has_accounts:
            move_streams(self.directory)
        check_store(self.directory, in_cluster=self._cluster is not None)
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
        if accounts:
            self._config.exchange(accounts)
        await self._reload_once()
        if new_account:
            # nats-server (2.15) gives an account that is new its imports at the reload after the one in which
            # it comes (`configureAccounts`), and only if something of the authorization is another.
            self._config.exchange_timeout()
            await self._reload_once()

    async def _reload_once(self) -> None:
        process, answer = self._running(), self._log.from_here()
        self._write_config(self.port)
        process.send_signal(signal.SIGHUP)

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
        return self._log.tail()

    @property
    def write_error(self) -> str | None:
        """What the server, since its start, has logged of a stream that it could not write; None if nothing.

        Such a stream takes nothing more until the server is started again, whatever becomes of the disk.
        """
        return self._log.write_error

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ConfigurationError("the broker has not been started")
        return self._process

    async def _start_on_a_free_port(self) -> int:
        for port in random.sample(FREE_PORTS, PORT_ATTEMPTS):
            try:
                await self._start_on(port)
            except PortTaken:
                continue
            return port
        raise ConfigurationError(f"no free port was found for the broker on {self.host}")

    async def _start_on(self, port: int) -> None:
        self._server_name = self.server_name or f"choir-{uuid.uuid4().hex}"
        self._log.begin()
        self._process = self._launch(self._write_config(port))
        try:
            await self._wait_ready(port, self._process)
        except BaseException:
            await self.stop()
            raise

    def _write_config(self, port: int) -> Path:
        return self._config.write(self.directory, self._server_name, port, self.log_path)

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

    async def _wait_ready(self, port: int, process: subprocess.Popen[bytes]) -> None:
        """Until our own server says, on its port, that JetStream is there."""
        listening = f"Listening for client connections on {authority(self.host, port)}"

        def settled() -> bool:
            return process.poll() is not None or self._log.has(listening)

        in_time = await until(settled, START_DEADLINE_S)
        if process.poll() is not None:
            raise self._died_at_once(port)
        info = await greeting(self.reachable_host, port, tls=self.tls is not None) if in_time else {}
        if info.get("server_name") != self._server_name or not info.get("jetstream"):
            raise ConfigurationError(
                f"the broker was not ready after {START_DEADLINE_S:.0f} s; its log ends:\n{self.log()}"
            )

    def _died_at_once(self, port: int) -> ConfigurationError:
        log = self.log()
        if "address already in use" in log:
            return PortTaken(
                f"port {port} on {self.host} is taken: stop what listens there, "
                "or set another port in section [broker] (0 takes any free one)"
            )
        return ConfigurationError(f"the broker ended at once; its log ends:\n{log}")
