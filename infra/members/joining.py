"""`choir join`: whoever has the line of an invite makes a key, tells the mesh of it, and is let in."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import nats.errors
from nats.aio.client import Client

from infra.broker.access.keys import KeyRing
from infra.broker.access.permissions import HOST
from infra.host.children.processes import writable_folder
from infra.host.credentials import KEYS_FOLDER
from infra.host.secret_file import write_whole
from schemas import subjects
from schemas.errors import ChoirError, ConfigurationError, MeshUnreachable, error_from_body
from schemas.nodes.joining import Join, Joined
from schemas.replies import ErrorReply
from services.chassis.nats.connecting.address import why
from services.chassis.nats.connecting.attempt import Attempt
from services.chassis.nats.connecting.ending import end_in_time
from services.chassis.nats.connecting.tls import trusting
from services.chassis.settings import MeshSection
from services.client.finding.invite_line import InviteLine, parse_line
from services.client.finding.local_mesh import running_mesh
from services.client.finding.membership import CLUSTER_FILE, FILE, Membership, joined

CONNECT_PATIENCE_S = 5.0
"""For each address: some of a host's may be reached from elsewhere only."""
REFUSED_PATIENCE_S = 15.0
"""An invite that was made a moment ago is known to the broker a moment later, on a busy host some seconds."""
REPLY_TIMEOUT_S = 30.0
BROKEN_OFF = (ConnectionResetError, BrokenPipeError, nats.errors.UnexpectedEOF)
"""How an attempt ends while the broker reads its configuration anew: so it does whenever somebody joins."""
BROKEN_OFF_PATIENCE_S = 20.0
"""Who hangs up is there: it is asked again for longer than one who says nothing."""
ASK_AGAIN_S = 0.5
CLIENT = "client"
CA_FILE = "ca.pem"


class _Untrusted(ConfigurationError):
    """Raised when whoever listens at an address does not prove to be the broker of the invite."""


@dataclass(frozen=True)
class Place:
    """Where what belongs to a membership is kept: `folder`, and the seeds in `keys`, by the name `seed`."""

    folder: Path
    keys: KeyRing
    seed: str


def place_of(line: InviteLine, state: Path, config: Path) -> Place:
    """A host's is its state folder, a person's the configuration folder."""
    if line.kind == "host":
        return Place(state, KeyRing(state / KEYS_FOLDER), HOST)
    return Place(config, KeyRing(config), CLIENT)


async def join(line: InviteLine, state: Path, config: Path) -> Membership:
    """Joins, and keeps what is needed from now on.

    ConfigurationError says why the invite is refused, or what is in the way here; MeshUnreachable that none
    of its addresses answers. Nothing is kept after an error but the key that was made.
    """
    place = place_of(line, state, config)
    _check_free(line, place, state)
    new = f"{place.seed}.new"
    public_key = place.keys.public_key(new)
    url, answer = await _ask(line, public_key)
    ca = _keep_ca(place, line)
    place.keys.path(new).replace(place.keys.path(place.seed))
    member = Membership(
        kind=line.kind,
        name=answer.name,
        url=_all_of(url, answer.servers),
        nkey=str(place.keys.path(place.seed)),
        ca=ca,
        role=answer.role,
        services=answer.services,
        invite=_public(line.seed),
    )
    write_whole(place.folder / FILE, member.model_dump_json(indent=2, exclude_none=True).encode())
    return member


def text_of(path: Path) -> str:
    """The line in a file. ConfigurationError if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the invite in {path} cannot be read: {error}") from error


async def join_once(text: str, state: Path, config: Path) -> None:
    """Joins by a line, as a host or as one of the brokers, unless it was done by that line already: for hosts
    that are started with all that they need (containers, units).

    ConfigurationError, MeshUnreachable as `join`; also if the line is for a person.
    """
    from infra.members.handover import has_taken, is_broker_line, parse_broker_line, take_over

    if is_broker_line(text):
        of_broker = parse_broker_line(text)
        if not has_taken(of_broker, state):
            await take_over(of_broker, state)
        return
    line, known = parse_line(text), joined(state)
    if line.kind != "host":
        raise ConfigurationError("this invite is for a person, and `choir up` is for hosts")
    if known is None or known.invite != _public(line.seed):
        await join(line, state, config)


def _all_of(url: str, servers: tuple[str, ...]) -> str:
    """The broker that has answered, and those that are one with it, with commas between them."""
    return ",".join(dict.fromkeys((url, *(f"tls://{server}" for server in servers))))


def leave(folder: Path, keys: KeyRing, seed: str) -> bool:
    """Forgets what was joined from a folder, with its key; whether there was anything."""
    found = (folder / FILE).is_file()
    (folder / FILE).unlink(missing_ok=True)
    if found:
        keys.path(seed).unlink(missing_ok=True)
    return found


def _check_free(line: InviteLine, place: Place, state: Path) -> None:
    if line.kind == "host" and running_mesh(state) is not None:
        raise ConfigurationError("a mesh runs on this host: `choir down` first, then `choir join` again")
    if line.kind == "host" and (state / CLUSTER_FILE).is_file():
        raise ConfigurationError(
            "this host runs one of the brokers of a cluster: leave that first, with `choir join --leave`"
        )
    known = joined(place.folder)
    if known is None:
        return
    same = known.name == line.name and _ca_of(known) == line.ca_pem
    if not same:
        raise ConfigurationError(
            f"the mesh at {known.url} was joined here as {known.name}: leave it first, with "
            "`choir join --leave`"
        )


def _ca_of(known: Membership) -> str | None:
    try:
        return None if known.ca is None else Path(known.ca).read_text()
    except OSError:
        return None


def _keep_ca(place: Place, line: InviteLine) -> str | None:
    if line.ca_pem is None:
        return None
    writable_folder(place.folder, "the folder of the mesh that is joined")
    write_whole(place.folder / CA_FILE, line.ca_pem.encode())
    return str(place.folder / CA_FILE)


# --- asking -----------------------------------------------------------------------------


async def _ask(line: InviteLine, public_key: str) -> tuple[str, Joined]:
    """Where the mesh answered, and what."""
    context = _context(line)
    reasons: list[str] = []
    untrusted: ConfigurationError | None = None
    for address in line.addresses:
        url = f"tls://{address}"
        try:
            return url, await _ask_at(url, line, context, public_key)
        except MeshUnreachable as error:
            reasons.append(f"{address}: {error.message}")
        except _Untrusted as error:
            untrusted = untrusted or error
    if untrusted is not None:
        raise untrusted
    raise MeshUnreachable(
        f"no broker answers where the invite says: {'; '.join(reasons)}. Is the way there open (a "
        "firewall, another network)? `[broker] addresses` on its host says what stands in invites"
    )


def _context(line: InviteLine) -> ssl.SSLContext:
    context = trusting(None, line.ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _ask_at(url: str, line: InviteLine, context: ssl.SSLContext, public_key: str) -> Joined:
    end_in_time()
    began_s = time.monotonic()
    while True:
        client, attempt = Client(), Attempt(MeshSection(url=url, ca="the invite" if line.ca else None))

        async def failed(error: Exception, attempt: Attempt = attempt) -> None:
            attempt.failed(error)

        try:
            async with attempt.within(CONNECT_PATIENCE_S):
                await client.connect(
                    [url],
                    name="join",
                    nkeys_seed_str=line.seed,
                    tls=context,
                    tls_handshake_first=True,
                    inbox_prefix=subjects.joining_inbox(_public(line.seed)).encode(),
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=ASK_AGAIN_S,  # type: ignore[arg-type]  # any number of seconds
                    error_cb=failed,
                )
                await client.flush()
            return await _reply(client, line, public_key)
        except (TimeoutError, OSError, nats.errors.Error) as error:
            if attempt.problem is not None:
                what = f"the broker at {url} is not the invite's: {attempt.problem}"
                raise _Untrusted(what) from error
            fault, spent_s = attempt.fault or error, time.monotonic() - began_s
            broken_off = isinstance(fault, BROKEN_OFF) and spent_s < BROKEN_OFF_PATIENCE_S
            if not attempt.refused and not broken_off:
                raise MeshUnreachable(why(fault)) from error
            if attempt.refused and spent_s > REFUSED_PATIENCE_S:
                raise ConfigurationError(
                    f"the broker at {url} does not know this invite: it was used or expired long ago, or "
                    f"is of "
                    "another mesh. Have a new one made with `choir invite`"
                ) from error
            await asyncio.sleep(ASK_AGAIN_S)
        finally:
            await client.close()


async def _reply(client: Client, line: InviteLine, public_key: str) -> Joined:
    request = Join(public_key=public_key).to_bytes()
    try:
        reply = await client.request(subjects.join(_public(line.seed)), request, timeout=REPLY_TIMEOUT_S)
    except nats.errors.NoRespondersError as error:
        raise MeshUnreachable("nobody there answers invites: is `choir up` running on its host?") from error
    if reply.headers and subjects.ERROR_CODE_HEADER in reply.headers:
        failure: ChoirError = error_from_body(ErrorReply.read(reply.data).error)
        raise ConfigurationError(failure.message, field=failure.field)
    return Joined.read(reply.data)


def _public(seed: str) -> str:
    import nkeys  # imported where a key is used

    pair = nkeys.from_seed(bytearray(seed.encode()))
    public: bytes = pair.public_key
    pair.wipe()
    return public.decode()
