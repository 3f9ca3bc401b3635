"""Who has changed what of the mesh: an event and a line of the log for each act of an operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from schemas.errors import ChoirError
from schemas.events import MeshChanged
from schemas.message import Message
from schemas.subjects import asked_on
from services.chassis.logs import get_logger
from services.chassis.telemetry.events import EventLog

if TYPE_CHECKING:
    from services.chassis.nats.endpoints import Caller

LONGEST = 200

RequestT = TypeVar("RequestT", bound=Message)

log = get_logger("chassis.audit")


def audited(
    handler: Callable[[RequestT, Caller], Awaitable[None]],
    kind: type[RequestT],
    subject: str,
    events: EventLog,
    *,
    relays: bool = False,
) -> Callable[[RequestT, Caller], Awaitable[None]]:
    """The same handler of the endpoint `subject`; where requests of this kind may change the mesh it tells of
    each that does, or that was refused. One that `relays` tells of refusals: the rest is told by who does it.
    """
    if kind.act is Message.act:
        return handler
    endpoint = asked_on(subject)

    async def told(request: RequestT, caller: Caller) -> None:
        try:
            await handler(request, caller)
        except ChoirError as error:
            emit_act(events, request, endpoint=endpoint, tenant=caller.tenant, key=caller.key, error=error)
            raise
        if not relays:
            emit_act(events, request, endpoint=endpoint, tenant=caller.tenant, key=caller.key)

    return told


def emit_act(
    events: EventLog,
    request: Message,
    *,
    endpoint: str,
    tenant: str,
    key: str | None = None,
    error: ChoirError | None = None,
) -> None:
    """Tells of a request that changes the mesh, once it is done, or was refused by an `error`; of one that
    changes nothing it tells nothing. `key` is the id of an API key whose secret was shown."""
    act = request.act()
    if act is None:
        return
    target, key = (None if said is None else said[:LONGEST] for said in (act.target, key))
    code = None if error is None else error.code
    log.warning(
        "mesh changed" if error is None else "mesh not changed",
        endpoint=endpoint, action=act.action, target=target, by=tenant, key=key, code=code,
    )  # fmt: skip
    events.publish(
        MeshChanged,
        endpoint=endpoint, action=act.action, target=target, tenant=tenant, key=key,
        error=None if error is None else error.body(),
    )  # fmt: skip
