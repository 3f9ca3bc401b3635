"""Hosts that run one broker together: what they share, and what each tells the others.

They share where they are, the secret of the routes between them, and the mesh's authority with its key, by
which each makes certificates of its own. `choir invite broker` hands that to another host (handover.py). What
a host runs, and the keys of that, it tells the others itself, in the bucket of hosts.
"""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.broker.cluster import route_secret
from infra.broker.tls.authority import Authority
from infra.broker.tls.certificates import FOLDER
from infra.host.children.processes import writable_folder
from infra.host.secret_file import write_whole
from infra.members.accounts_controller import AccountsController
from infra.settings import HostSettings
from schemas import subjects
from schemas.errors import ConfigurationError
from schemas.nodes.joining import Host
from schemas.requests.tenants import LOCAL, Tenant
from services.chassis.nats.connecting.address import is_loopback
from services.chassis.settings import MeshSection
from services.client.finding.broker_section import BrokerSection
from services.client.finding.local_mesh import running_mesh
from services.client.finding.membership import CLUSTER_FILE, joined

EVERYWHERE = "0.0.0.0"


class Shared(BaseModel):
    """What a host keeps of its cluster: the brokers' addresses, and the secret of the routes between them.

    `by_line`: it came with a line, and the authority with it; `invite` is the mark of that line.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    servers: tuple[str, ...]
    secret: str
    by_line: bool = False
    invite: str | None = None


class ClusterSecrets(BaseModel):
    """What the brokers of a cluster share. `ca` and `ca_key` are the authority's (PEM); None on loopback, and
    where every host has a certificate of the user's own."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    servers: tuple[str, ...]
    secret: str
    ca: str | None = None
    ca_key: str | None = None


def shared_by_brokers(state: Path) -> Shared | None:
    """What this host has of its cluster; None if there is nothing. ConfigurationError if it is damaged."""
    path = state / CLUSTER_FILE
    try:
        return Shared.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: type `choir join` with the line of `choir invite broker` again"
        ) from error


def cluster_secrets(broker: BrokerSection, mesh: MeshSection, state: Path) -> ClusterSecrets:
    """Those of the cluster that `[broker]` speaks of; what is missing here is made.

    ConfigurationError if it speaks of none.
    """
    kept = shared_by_brokers(state)
    if not broker.cluster or not broker.embedded:
        raise ConfigurationError(
            "there is no cluster that a broker could join: with `cluster` section [broker] of choir.toml "
            "says on which three hosts its brokers are",
            field="broker.cluster",
        )
    known = route_secret(mesh, None if kept is None else kept.secret)
    secret = known or secrets.token_hex(32)
    before = kept or Shared(servers=(), secret="")
    _keep(state, before.model_copy(update={"servers": broker.cluster, "secret": secret}))
    if broker.tls is not None or (is_loopback(broker.host) and "host" in broker.model_fields_set):
        return ClusterSecrets(servers=broker.cluster, secret=secret)
    ca, ca_key = Authority(state / FOLDER).shared()
    return ClusterSecrets(servers=broker.cluster, secret=secret, ca=ca, ca_key=ca_key)


def check_may_take(state: Path) -> None:
    """ConfigurationError says what keeps this host from running one of the brokers of a cluster."""
    if running_mesh(state) is not None:
        raise ConfigurationError("a mesh runs on this host: `choir down` first, then `choir join` again")
    if (member := joined(state)) is not None:
        raise ConfigurationError(
            f"this host has joined the mesh at {member.url} as {member.name}: leave it first, with "
            "`choir join --leave`"
        )


def take_secrets(handed: ClusterSecrets, state: Path, invite: str | None = None) -> Shared:
    """This host is to run one of the brokers. ConfigurationError says what is in the way."""
    check_may_take(state)
    if handed.ca is not None and handed.ca_key is not None:
        Authority(state / FOLDER).take(handed.ca, handed.ca_key)
    shared = Shared(servers=handed.servers, secret=handed.secret, by_line=True, invite=invite)
    _keep(state, shared)
    return shared


def _keep(state: Path, shared: Shared) -> None:
    folder = writable_folder(state, "the state folder")
    try:
        write_whole(folder / CLUSTER_FILE, shared.model_dump_json().encode())
    except OSError as error:
        raise ConfigurationError(f"{folder / CLUSTER_FILE} cannot be written: {error.strerror}") from error


def leave_brokers(state: Path) -> bool:
    """Forgets what came with a line, the authority as well; whether there was anything."""
    kept = shared_by_brokers(state)
    if kept is None:
        return False
    (state / CLUSTER_FILE).unlink(missing_ok=True)
    if kept.by_line:
        Authority(state / FOLDER).forget()
    return True


def settings_of_broker_host(settings: HostSettings, shared: Shared | None) -> HostSettings:
    """The settings of a host whose cluster came with a line: choir.toml need not say it again."""
    broker = settings.broker
    if shared is None or broker.cluster or not broker.embedded:
        return settings
    host = broker.host if "host" in broker.model_fields_set else EVERYWHERE
    changed = broker.model_copy(update={"cluster": shared.servers, "host": host})
    return settings.model_copy(update={"broker": changed})


async def publish_own_host(controller: AccountsController, own: Host, local_key: str | None) -> None:
    """The other brokers let in what this host runs, and its own clients (`local_key`) as the tenant `local`.

    ConfigurationError if this host has been revoked.
    """
    key = subjects.host_key(own.name)
    controller.members.hosts[own.name] = await controller.hosts.change(key, partial(_own_entry, own))
    if local_key is not None:
        change = partial(_local_with, local_key, controller.now())
        local = await controller.tenants.change(subjects.tenant_key(subjects.LOCAL_TENANT), change)
        controller.members.tenants[local.name] = local
    await controller.settle()


def _own_entry(own: Host, known: Host | None) -> Host:
    if known is not None and known.revoked_at_s is not None and known.public_key == own.public_key:
        raise ConfigurationError(
            f"this host was revoked as {own.name}: its keys are good no more. To let it in again, move the "
            "folder `keys` of its state folder away; others are made then"
        )
    same = known is not None and known.model_copy(update={"created_at_s": own.created_at_s}) == own
    return known if known is not None and same else own


def _local_with(public_key: str, now_s: float, known: Tenant | None) -> Tenant:
    local = known or LOCAL.model_copy(update={"created_at_s": now_s})
    if public_key in local.public_keys:
        return local
    return local.model_copy(update={"public_keys": (*local.public_keys, public_key)})
