"""The limits of tenants, held over all routers without a message more.

Requests in flight: a router counts what it has let in and what has no result yet; each hears of every stored
result. Its lease says what it counts. What is free of a limit is divided among the live routers, and each may
let in its part until the next leases tell anew: so together they never pass the limit, but while a router
comes or goes (for at most the life of a lease), and one may refuse what another still has free. One router
alone keeps to the limit exactly.

Tokens a minute: each router hears of every stored result, so each knows what all tenants have spent. They are
counted when a result is stored: what is in flight when a budget is spent is still done. The text that a
client has had of a request that it cancelled, or that ended at its deadline, is counted by the router that
has sent it, once, however often it is fetched.

A router that begins alone takes up what is in the queues: what an earlier one had let in. Of the tokens of
the minute before it knows nothing.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from schemas import subjects
from schemas.broker import catalog
from schemas.errors import Overloaded
from schemas.nodes.lease import NodeLease, TenantLoad
from schemas.replies import Result
from schemas.requests.tenants import QUEUE_LENGTH, Tenant, most_of_batch
from schemas.subjects import Priority
from services.chassis.logs import get_logger
from services.chassis.nats.sharing import GREED
from services.chassis.registry.tenants import Tenants

WINDOW_S = 60.0
RETRY_AFTER_S = 1.0
OVERDUE_S = 60.0
"""So long after its deadline a request is in flight no more, whatever was heard of it."""
TEXT_KEPT_S = next(spec.max_age_s or 0.0 for spec in catalog.STREAMS if spec.name == subjects.TOKENS_STREAM)
"""So long the text of a request can be had again."""
OPEN_BESIDES = 64
"""Requests of a tenant that may be looked at, only to be refused, beside those that it may have in flight."""
LOOKED_AT_A_SECOND = 64
"""So many requests of a tenant over its limit are looked at; what it asks for further within a second of the
first of them is refused unread."""
LOOK_S = 1.0
QUEUE_BYTES = next(spec.max_bytes for spec in catalog.STREAMS if spec.name == subjects.COMMANDS_STREAM)
LITTLE = QUEUE_LENGTH // 32
"""Of a router that has let in less than this the queue is not full."""

log = get_logger("router.limits")


@dataclass(frozen=True)
class _Taken:
    tenant: str
    batch: bool
    until_s: float


class TenantLimits:
    """Requests that tenants have in work, and the limits of these. `routers` are the leases of those that
    live, the one of `instance` among them."""

    def __init__(
        self,
        tenants: Tenants,
        instance: str,
        routers: Callable[[], Sequence[NodeLease]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._tenants = tenants
        self._instance = instance
        self._routers = routers
        self._in_flight: dict[str, _Taken] = {}
        self._counts: Counter[tuple[str, bool]] = Counter()
        self._sizes: dict[str, int] = {}
        self._bytes: Counter[str] = Counter()
        """Of the commands in flight that this router has let in: of each, and of each tenant."""
        self._spent: dict[str, deque[tuple[float, int]]] = {}
        self._refused: dict[str, tuple[int, float]] = {}
        """Of each tenant that was refused: how often, until when that counts."""
        self._had: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Of requests that came to nothing: when a client last had text, how many tokens. Oldest first."""

    def take(self, request_id: str, priority: Priority, timeout_s: float) -> bool:
        """Counts a request that is let in; False if it is counted already.

        Raises Overloaded if its tenant has as much as it may have, NotPermitted if it is let in no more.
        """
        if request_id in self._in_flight:
            return False
        name, batch = subjects.owner_of(request_id), priority == "batch"
        self._tenants.check(name)
        tenant = self._tenants.find(name)
        try:
            self._check_room(name)
            if tenant is not None:
                self._check(tenant, batch)
        except Overloaded:
            self._note_refusal(name)
            raise
        self._in_flight[request_id] = _Taken(name, batch, self._now() + timeout_s + OVERDUE_S)
        self._counts[name, batch] += 1
        return True

    def weigh(self, request_id: str, size: int) -> None:
        """Counts the bytes of a request's command. Overloaded if its tenant's would fill the queue.

        What other routers let in is not known: each has its part of the queue.
        """
        if request_id in self._sizes:
            return
        tenant = subjects.owner_of(request_id)
        most = QUEUE_BYTES // max(1, len(self._routers()))
        if self._bytes[tenant] + size > GREED * max(0, most - self._bytes.total() - size):
            raise Overloaded(_FULL.format(tenant=tenant), retry_after_s=RETRY_AFTER_S)
        if request_id in self._in_flight:
            self._sizes[request_id] = size
            self._bytes[tenant] += size

    def most_open(self, tenant: str) -> int | None:
        """How many requests of a tenant a router looks at or waits for at once; None without a limit. Each
        that is in flight may be asked and fetched. None of one that goes on asking though it was refused. Who
        sends thousands in one go costs others no time so."""
        refusals, until_s = self._refused.get(tenant, (0, 0.0))
        if refusals >= LOOKED_AT_A_SECOND and self._now() < until_s:
            return 0
        known = self._tenants.find(tenant)
        limit = None if known is None else known.limits.requests_in_flight
        return None if limit is None else 2 * limit + OPEN_BESIDES

    def _note_refusal(self, tenant: str) -> None:
        refusals, until_s = self._refused.get(tenant, (0, 0.0))
        if self._now() >= until_s:
            refusals, until_s = 0, self._now() + LOOK_S
        self._refused[tenant] = refusals + 1, until_s
        if refusals + 1 == LOOKED_AT_A_SECOND:
            log.warning("a tenant over its limit goes on asking: refused unread for a moment", tenant=tenant)

    def take_up(self, queued: Iterable[str], longest_s: float) -> None:
        """Counts what a router that is gone had let in: the commands on these subjects. Results that are
        stored from now on have to be told. Nothing is counted where another router lives, which counts its
        own."""
        if any(lease.instance != self._instance for lease in self._routers()):
            return
        for subject in queued:
            request_id, batch = subjects.request_of_command(subject), subjects.is_batch(subject)
            if request_id not in self._in_flight:
                name = subjects.owner_of(request_id)
                self._in_flight[request_id] = _Taken(name, batch, self._now() + longest_s + OVERDUE_S)
                self._counts[name, batch] += 1

    def give_back(self, request_id: str) -> None:
        """The request has ended, or was not let in after all."""
        taken = self._in_flight.pop(request_id, None)
        if taken is not None:
            self._bytes[taken.tenant] -= self._sizes.pop(request_id, 0)
            if not self._bytes[taken.tenant]:
                del self._bytes[taken.tenant]
            self._counts[taken.tenant, taken.batch] -= 1
            if not self._counts[taken.tenant, taken.batch]:
                del self._counts[taken.tenant, taken.batch]

    def on_result(self, request_id: str, data: bytes) -> None:
        """A result was stored, of whichever router's request."""
        self.give_back(request_id)
        if self._counts_tokens(request_id):
            self._charge(request_id, tokens_in(data))

    def charge_text(self, request_id: str, tokens: int) -> None:
        """A client has had so many tokens of a request that came to nothing: no result tells of them. Had
        again, they are not counted again."""
        if tokens and self._counts_tokens(request_id):
            now_s = self._now()
            while self._had and next(iter(self._had.values()))[0] <= now_s - TEXT_KEPT_S:
                self._had.popitem(last=False)
            _, before = self._had.pop(request_id, (now_s, 0))
            self._had[request_id] = (now_s, max(before, tokens))
            self._charge(request_id, max(0, tokens - before))

    def _counts_tokens(self, request_id: str) -> bool:
        tenant = self._tenants.find(subjects.owner_of(request_id))
        return tenant is not None and tenant.limits.tokens_per_minute is not None

    def _charge(self, request_id: str, tokens: int) -> None:
        if tokens:
            self._spent.setdefault(subjects.owner_of(request_id), deque()).append((self._now(), tokens))

    def forget_overdue(self) -> None:
        """Requests whose result was never heard of are in flight no more."""
        now_s = self._now()
        for request_id in [one for one, taken in self._in_flight.items() if taken.until_s < now_s]:
            log.info("no result was heard of", request_id=request_id)
            self.give_back(request_id)

    @property
    def loads(self) -> dict[str, TenantLoad]:
        """The requests of each tenant that this router has let in, for its lease."""
        return {name: self.load_of(name) for name in sorted({name for name, _ in self._counts})}

    def load_of(self, tenant: str) -> TenantLoad:
        """The requests of one tenant that this router has let in."""
        batch, other = self._counts.get((tenant, True), 0), self._counts.get((tenant, False), 0)
        return TenantLoad(in_flight=batch + other, batch=batch)

    def in_flight(self, tenant: str) -> int:
        """Requests without a result that all routers have let in of a tenant, as far as is known here."""
        others = (
            self._load_in(lease, tenant) for lease in self._routers() if lease.instance != self._instance
        )
        return self.load_of(tenant).in_flight + sum(load.in_flight for load in others)

    @staticmethod
    def _load_in(lease: NodeLease, tenant: str) -> TenantLoad:
        return lease.tenants.get(tenant, TenantLoad())

    def _check_room(self, tenant: str) -> None:
        """No tenant fills the queue, whatever it may have: it may have so many times what is free in it, and
        there is always something free for another one."""
        if len(self._in_flight) < LITTLE:
            return
        others = (lease for lease in self._routers() if lease.instance != self._instance)
        all_of_others = sum(load.in_flight for lease in others for load in lease.tenants.values())
        free = QUEUE_LENGTH - len(self._in_flight) - all_of_others
        if self.in_flight(tenant) >= GREED * free:
            raise Overloaded(_FULL.format(tenant=tenant), retry_after_s=RETRY_AFTER_S)

    def _check(self, tenant: Tenant, batch: bool) -> None:
        limits = tenant.limits
        if limits.tokens_per_minute is not None:
            self._check_tokens(tenant.name, limits.tokens_per_minute)
        if limits.requests_in_flight is not None:
            what = f"{limits.requests_in_flight} requests at a time"
            self._check_count(tenant.name, limits.requests_in_flight, lambda load: load.in_flight, what)
        if batch and limits.batch_share is not None:
            most = most_of_batch(limits.batch_share)
            what = f"{most} requests of the class batch at a time"
            self._check_count(tenant.name, most, lambda load: load.batch, what)

    def _check_count(self, tenant: str, limit: int, count: Callable[[TenantLoad], int], what: str) -> None:
        if count(self.load_of(tenant)) >= self._part(tenant, limit, count):
            raise _over(tenant, what)

    def _part(self, tenant: str, limit: int, count: Callable[[TenantLoad], int]) -> int:
        """How many this router may have: what it had when it last told, and its part of what was free."""
        told = {lease.instance: count(self._load_in(lease, tenant)) for lease in self._routers()}
        if not told.keys() - {self._instance}:
            return limit
        own = told.setdefault(self._instance, count(self.load_of(tenant)))
        free = max(0, limit - sum(told.values()))
        share, left = divmod(free, len(told))
        return own + share + (sorted(told).index(self._instance) < left)

    def _check_tokens(self, tenant: str, limit: int) -> None:
        now_s, spent = self._now(), self._spent.get(tenant)
        if spent is None:
            return
        while spent and spent[0][0] <= now_s - WINDOW_S:
            spent.popleft()
        over = sum(tokens for _, tokens in spent) - limit
        if over < 0:
            return
        for at_s, tokens in spent:
            over -= tokens
            if over < 0:
                raise _over(tenant, f"{limit} tokens a minute", max(RETRY_AFTER_S, at_s + WINDOW_S - now_s))


_FULL = "the tenant {tenant} has all of the queue that one may have: the rest of it is for others"


def _over(tenant: str, what: str, retry_after_s: float = RETRY_AFTER_S) -> Overloaded:
    return Overloaded(f"the tenant {tenant} may have {what}, and has them", retry_after_s=retry_after_s)


def tokens_in(data: bytes) -> int:
    """The tokens of all prompts and answers of a stored result; 0 of one that cannot be read."""
    try:
        result = Result.read(data)
    except ValidationError:
        return 0
    answers = (*result.answers, *result.further_answers)
    return sum(answer.prompt_tokens + answer.generated_tokens for answer in answers)
