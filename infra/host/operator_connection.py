"""The operator's connection to the broker, and the streams of the mesh, made again after each restart."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from pathlib import Path

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from infra.broker.provision import TooFewServers, provision
from infra.host.children.child import BackOff
from schemas.errors import ChoirError, ConfigurationError, MeshUnreachable
from schemas.subjects import inbox_prefix
from services.chassis.nats.connecting.address import why, without_password
from services.chassis.nats.connecting.attempt import NOT_LET_IN, Attempt
from services.chassis.nats.connecting.deafness import reconnect_when_deaf
from services.chassis.nats.connecting.ending import end_in_time
from services.chassis.nats.connection import PING_INTERVAL_S, UNANSWERED_PINGS
from services.chassis.nats.election import ELECTION_PATIENCE_S, passes
from services.chassis.settings import MeshSection
from services.client.finding.local_mesh import RunningMesh

CONNECT_DEADLINE_S = 5.0
SILENCE_DEADLINE_S = 15.0
"""While nobody says no: a broker on a busy host may stand still for a moment."""
AGREE_DEADLINE_S = 600.0
"""The hosts of a cluster are started one after another, by people."""
AGREE_LOOK_S = 2.0
AGREE_PAUSE_S = 0.25
RECONNECT_WAIT_S = 0.2
USER = "supervisor"
REFUSALS = 5
"""After so many in a row it is no broker that has just started and does not know its hosts yet."""


async def connect_operator(
    url: str,
    mesh: MeshSection,
    on_reconnect: Callable[[], Awaitable[None]],
    *,
    inbox: str | None = None,
    on_refused: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """A client that never gives up once it was connected.

    MeshUnreachable says why nobody answers, ConfigurationError that the broker refuses who comes. `inbox` is
    the prefix of replies, by default the operator's; `on_end` is called if the broker ends the connection
    for good.
    """
    end_in_time()
    refusals = 0
    client, credentials, attempt = Client(), mesh.credentials, Attempt(mesh)

    async def failed(error: Exception) -> None:
        """Each attempt to reconnect fails until the broker is back; that it died is said elsewhere."""
        nonlocal refusals
        attempt.failed(error)
        refusals = refusals + 1 if NOT_LET_IN in str(error).lower() else refusals
        if refusals == REFUSALS and on_refused is not None:
            await on_refused()

    async def reconnected() -> None:
        nonlocal refusals
        refusals = 0
        await on_reconnect()

    try:
        async with attempt.within(CONNECT_DEADLINE_S, SILENCE_DEADLINE_S):
            await client.connect(
                url.split(","),
                dont_randomize=True,
                name=USER,
                **credentials,
                inbox_prefix=(inbox or inbox_prefix(USER)).encode(),
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # any number of seconds
                ping_interval=PING_INTERVAL_S,  # type: ignore[arg-type]  # any number of seconds
                max_outstanding_pings=UNANSWERED_PINGS,
                reconnected_cb=reconnected,
                error_cb=failed,
            )
    except (TimeoutError, OSError, nats.errors.Error) as error:
        with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                await client.close()
        raise _not_connected(url, attempt, error) from error
    reconnect_when_deaf(client)
    return client


def operator_of(mesh: RunningMesh, key: Path) -> MeshSection:
    """How the operator comes to the broker of the mesh that runs on this host, by its `key`: of a cluster to
    this host's own, which knows it."""
    url = mesh.url.partition(",")[0]
    return MeshSection(url=url, nkey=str(key), ca=mesh.ca, tls_first=mesh.tls_first)


def _not_connected(url: str, attempt: Attempt, error: Exception) -> ChoirError:
    shown, mesh = without_password(url), attempt.mesh
    if attempt.refused:
        who = "without user and password" if mesh.user is None else f"as user {mesh.user!r}"
        return ConfigurationError(
            f"the broker at {shown} lets nobody in {who}: `choir invite host` on its host prints a line, and "
            "`choir join` with that line lets this host in; or set user and password in section [mesh]",
            field="mesh",
        )
    if attempt.problem is not None:
        return ConfigurationError(
            f"the broker at {shown} is not spoken to: {attempt.problem}", field="mesh.ca"
        )
    return MeshUnreachable(
        f"no broker answers at {shown}: {why(attempt.fault or error)}. Start it, or set embedded = true in "
        f"section [broker]"
    )


async def provision_patiently(client: Client, models: Iterable[str], replicas: int | None = None) -> None:
    """`provision` of a broker that may be away for a moment, as while it reads its configuration.

    Raises ConfigurationError, and MeshUnreachable if it does not come back.
    """
    end_s, models = time.monotonic() + ELECTION_PATIENCE_S, tuple(models)
    while True:
        try:
            await provision(client, models, replicas)
            return
        except MeshUnreachable:
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(AGREE_PAUSE_S)


class Provisioning:
    """Makes the broker agree with the catalog, and again after it was started anew: what it kept in memory is
    gone then. Tried until it succeeds or the broker goes again; `say` is told of each attempt that fails."""

    def __init__(
        self,
        client: Client,
        models: Iterable[str],
        say: Callable[[str], None],
        replicas: int | None = None,
    ) -> None:
        self._replicas = replicas
        self._client = client
        self._models = tuple(models)
        self._say = say
        self._starts = 0

    async def first(self) -> None:
        """Once, for the start of the mesh. Raises ConfigurationError, MeshUnreachable."""
        await provision(self._client, self._models, self._replicas)

    async def first_of_cluster(self, others: str) -> None:
        """`first`, when so many servers are there and have chosen a leader as it takes: hosts start one after
        another. `others` are those that are waited for.

        Raises MeshUnreachable, which names the servers, and ConfigurationError.
        """
        js = self._client.jetstream(timeout=AGREE_LOOK_S)
        try:
            async with asyncio.timeout(AGREE_DEADLINE_S):
                for attempt in count():
                    try:
                        await js.account_info()
                        await self.first()
                        return
                    except (TooFewServers, MeshUnreachable):
                        pass
                    except nats.errors.Error as error:
                        if not passes(error):
                            raise
                    if attempt == 1:
                        self._say(f"waits for the other brokers of the cluster: {others}")
                    await asyncio.sleep(AGREE_PAUSE_S)
        except TimeoutError as error:
            raise MeshUnreachable(
                f"the brokers of the cluster have not agreed within {AGREE_DEADLINE_S:.0f} s: all of "
                f"them have to be there at the first start. Run `choir up` on {others} too, after "
                "`choir join` with the line that `choir invite broker` prints here; or with the same "
                "[broker] cluster, the same [mesh] password, and certificates of the same authority"
            ) from error

    async def again(self, done: Callable[[], None]) -> None:
        """After a reconnection, and then `done`. Returns as well when the broker is gone once more: another
        reconnection will call it again."""
        self._starts += 1
        start, back_off = self._starts, BackOff()
        while True:
            try:
                await provision(self._client, self._models, self._replicas)
            except (ChoirError, nats.errors.Error, nats.js.errors.Error, OSError) as error:
                reason = error.message if isinstance(error, ChoirError) else why(error)
            else:
                done()
                return
            if start != self._starts or not self._client.is_connected:
                return
            wait_s = back_off.after(0)
            self._say(f"after the broker came back: {reason}; tried again in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            if start != self._starts:
                return
