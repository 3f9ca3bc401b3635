"""The endpoint `choir.keys`: operators make, change and revoke API keys; gateways hear of it from the bucket.

A change is made only if nobody else has changed the same key since it was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nats.aio.client import Client

from schemas import subjects
from schemas.errors import InvalidRequest, NotPermitted
from schemas.requests.keys import ApiKey, KeysReply, ManageKeys, makes_keys_for
from schemas.subjects import LOCAL_TENANT
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, WrongRevision, messages
from services.chassis.nats.endpoints import Caller

MOST_KEYS = 10_000
FULL = "there is no room for more keys: remove those that have ended (`choir keys remove ID`)"

log = get_logger("router.keys")


class Keys:
    """`choir.keys`: list, add, change, revoke, remove."""

    def __init__(self, client: Client) -> None:
        self._known: dict[str, ApiKey] = {}
        self._bucket = Bucket(
            client, subjects.KEYS_BUCKET, messages(ApiKey), self._on_put, self._on_delete, full=FULL
        )

    async def start(self) -> None:
        """Returns when it is known which keys there are."""
        await self._bucket.watch()

    async def resume(self) -> None:
        """After a reconnection."""
        await self._bucket.reload()

    def _on_put(self, _key: str, key: ApiKey) -> None:
        self._known[key.id] = key

    def _on_delete(self, key: str) -> None:
        self._known.pop(subjects.id_of_api_key(key), None)

    async def manage(self, request: ManageKeys, caller: Caller) -> None:
        """Does what is asked, and sends the keys that it concerns: all of them for a list."""
        if request.key is not None:
            _check_no_more(request.key, caller)
            concerned: tuple[ApiKey, ...] = (await self._add(request.key),)
        elif request.id is not None:
            concerned = (await self._change(request.id, request, caller),)
        else:
            concerned = tuple(sorted(self._known.values(), key=lambda key: key.id))
        await caller.send_what_fits(_lists(concerned))

    async def _add(self, key: ApiKey) -> ApiKey:
        if key.id in self._known:
            raise InvalidRequest(f"key.id: there is a key {key.id!r}; take another id", field="key.id")
        if len(self._known) >= MOST_KEYS:
            raise InvalidRequest(f"key.id: {FULL}", field="key.id")
        with _changed_meanwhile(key.id):
            await self._bucket.update(subjects.api_key(key.id), key, 0)
        log.warning("key made", key=key.id, tenant=key.tenant, scopes=key.scopes)
        return key

    async def _change(self, key_id: str, request: ManageKeys, caller: Caller) -> ApiKey:
        place = subjects.api_key(key_id)
        entry = await self._bucket.get(place)
        key = entry.value
        if key is None:
            raise InvalidRequest(f"id: there is no key {key_id!r}; `choir keys list` has them", field="id")
        log.warning("key changed", key=key_id, action=request.action)
        with _changed_meanwhile(key_id):
            if request.action == "remove":
                await self._bucket.delete(place, entry.revision)
                return key
            if request.change is not None:
                said = request.change.model_dump(exclude_none=True)
                changed = ApiKey.model_validate({**key.model_dump(), **said})
                _check_no_more(changed, caller)
            else:
                changed = key.model_copy(update={"revoked": True})
            await self._bucket.update(place, changed, entry.revision)
        return changed


def _check_no_more(made: ApiKey, caller: Caller) -> None:
    """Raises NotPermitted for a key that may do more than the one with which a gateway has it made, and for
    one of another tenant than the caller's, unless that is the mesh's own."""
    if not makes_keys_for(caller.tenant, made.tenant):
        raise NotPermitted(
            f"key.tenant: {caller.tenant} has its own keys made and changed (`--tenant {caller.tenant}`); "
            f"those of {made.tenant} {LOCAL_TENANT} has, where the broker runs, or by a key of its own",
            field="key.tenant",
        )
    field = None if caller.shown is None else caller.shown.exceeded_by(made)
    if field is not None:
        raise NotPermitted(
            f"key.{field}: a key makes none that may do more than itself", field=f"key.{field}"
        )


def _lists(keys: tuple[ApiKey, ...]) -> Iterator[KeysReply]:
    """All keys, and ever fewer of them."""
    yield KeysReply(keys=keys)
    some = keys
    while some:
        some = some[: len(some) // 2]
        yield KeysReply(keys=some, left_out=len(keys) - len(some))


@contextmanager
def _changed_meanwhile(key_id: str) -> Iterator[None]:
    """Says to the client that somebody else was faster."""
    try:
        yield
    except WrongRevision as error:
        raise InvalidRequest(
            f"id: key {key_id!r} was changed by somebody else at the same time; try again", field="id"
        ) from error
