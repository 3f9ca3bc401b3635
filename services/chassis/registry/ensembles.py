"""The ensembles with a name as the mesh keeps them: a live copy, changed by compare-and-set alone.

Each host says which its choir.toml has, operators add others. What was said of a name first counts. Whoever
says otherwise is told, and its word waits: it counts when nobody says the first one any more. So two hosts
that disagree change nothing in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import nats.errors
from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.ensembles.kept import EnsembleWord, NamedEnsemble
from schemas.ensembles.named import MAX_ENSEMBLES, Ensemble
from schemas.errors import BrokerUnavailable, InvalidRequest
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, WrongRevision, messages

CHANGE_ATTEMPTS = 16
RETRY_AFTER_S = 1.0
LOOK_AGAIN_S = 5.0
"""So often it is looked for a bucket that was not there: a host with an older Choir has no place for it."""
MOST_BYTES = 256 * 1024
"""All of them stand in the one reply that lists the models."""
FULL = "there is no room for more ensembles: remove some (`choir ensembles rm NAME`)"

log = get_logger("registry.ensembles")


class Ensembles:
    """Those that count, and what was said of each. `meanwhile` counts until the bucket was read once."""

    def __init__(self, client: Client, meanwhile: Iterable[Ensemble] = ()) -> None:
        self._meanwhile = tuple(meanwhile)
        self._known: dict[str, NamedEnsemble] = {}
        self._was_read = self._was_missed = False
        self._bucket = Bucket(
            client,
            subjects.ENSEMBLES_BUCKET,
            messages(NamedEnsemble),
            self._on_put,
            self._on_delete,
            full=FULL,
        )

    # --- a live copy --------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when it is known which there are, or that the mesh has no place for them yet."""
        await self._read(self._bucket.watch)

    async def resume(self) -> None:
        """After a reconnection, or when updates were missed."""
        await self._read(self._bucket.reload)

    async def keep_looking(self) -> None:
        """Reads the bucket as soon as there is one, for ever."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            if not self._was_read:
                await self.resume()

    async def _read(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            await read()
        except (nats.errors.Error, BrokerUnavailable) as error:
            if self._was_read:
                raise
            if self._was_missed:
                return
            self._was_missed = True
            log.warning(
                "the mesh keeps no ensembles yet, so those of this choir.toml count here: `choir up` of this "
                "version on the broker's host makes a place for them",
                why=type(error).__name__,
            )
        else:
            self._was_read = True

    def _on_put(self, key: str, entry: NamedEnsemble) -> None:
        self._known[key] = entry

    def _on_delete(self, key: str) -> None:
        self._known.pop(key, None)

    @property
    def kept(self) -> tuple[NamedEnsemble, ...]:
        """Everything that was said, in the order of the names."""
        return tuple(sorted(self._known.values(), key=lambda entry: entry.ensemble.name))

    @property
    def all(self) -> tuple[Ensemble, ...]:
        """Those that count, in the order of their names."""
        return tuple(entry.ensemble for entry in self.kept) if self._was_read else self._meanwhile

    def find(self, name: str) -> Ensemble | None:
        """The one of this name."""
        if not self._was_read:
            return next((one for one in self._meanwhile if one.name == name), None)
        entry = self._known.get(subjects.ensemble_key(name))
        return None if entry is None else entry.ensemble

    @property
    def disputes(self) -> tuple[str, ...]:
        """A line for each name of which different things are said."""
        return tuple(entry.dispute for entry in self.kept if entry.dispute is not None)

    # --- what hosts and operators say ---------------------------------------------------

    async def declare(self, host: str, ensembles: Iterable[Ensemble]) -> tuple[str, ...]:
        """All that the choir.toml of a host says: what it said before and says no more is taken back.

        Returns a line for each that does not count, or cannot be kept. Raises BrokerUnavailable.
        """
        said = {subjects.ensemble_key(one.name): one for one in ensembles}
        try:
            await self._bucket.reload()
        except nats.errors.Error as error:
            raise BrokerUnavailable(
                "the ensembles of the mesh could not be read", retry_after_s=RETRY_AFTER_S
            ) from error
        problems = []
        for key in (*(key for key in self._known if key not in said), *said):
            try:
                entry = await self._say(key, host, said.get(key))
            except InvalidRequest as error:
                problems.append(error.message)
                continue
            if key in said and entry is not None and entry.dispute is not None:
                problems.append(entry.dispute)
        return tuple(problems)

    async def declare_if_possible(self, host: str, ensembles: Iterable[Ensemble]) -> tuple[str, ...]:
        """The same, with a line in place of an error: a host comes up without its ensembles, too."""
        try:
            return await self.declare(host, ensembles)
        except BrokerUnavailable as error:
            return (f"{error.message}: those of {host} are as they were; `choir up` there tells them again",)

    async def add(self, ensemble: Ensemble) -> NamedEnsemble:
        """An ensemble of the operators' own, or another one in its place.

        InvalidRequest if a choir.toml says otherwise, or there is no room.
        """
        key = subjects.ensemble_key(ensemble.name)
        entry = await self._say(key, None, ensemble, refuse_dispute=True)
        assert entry is not None
        return entry

    async def remove(self, name: str) -> NamedEnsemble:
        """Forgets all that was said of a name, and returns that. InvalidRequest if there is no such name."""
        key = subjects.ensemble_key(name)
        for _ in range(CHANGE_ATTEMPTS):
            entry = await self._bucket.get(key)
            if entry.value is None:
                names = ", ".join(one.name for one in self.all) or "none"
                raise InvalidRequest(f"name: there is no ensemble {name!r}; there are: {names}", field="name")
            try:
                await self._bucket.delete(key, entry.revision)
            except WrongRevision:
                continue
            self._on_delete(key)
            return entry.value
        raise _unavailable(name)

    async def _say(
        self, key: str, speaker: str | None, said: Ensemble | None, *, refuse_dispute: bool = False
    ) -> NamedEnsemble | None:
        """Has a speaker say something of a name, or nothing; returns all that is said of it then."""
        for _ in range(CHANGE_ATTEMPTS):
            try:
                entry = await self._bucket.get(key)
            except ValidationError as error:
                raise InvalidRequest(
                    f"ensemble.name: what is kept under {key!r} is of a newer Choir: change it from there",
                    field="ensemble.name",
                ) from error
            wanted = with_word(entry.value, speaker, said)
            if refuse_dispute and wanted is not None and wanted.ensemble != said:
                raise InvalidRequest(f"ensemble.name: {wanted.dispute}", field="ensemble.name")
            if wanted == entry.value:
                return wanted
            if entry.value is None and said is not None:
                self._check_room(said)
            try:
                if wanted is None:
                    await self._bucket.delete(key, entry.revision)
                    self._on_delete(key)
                else:
                    await self._bucket.update(key, wanted, entry.revision)
                    self._on_put(key, wanted)
            except WrongRevision:
                continue
            return wanted
        raise _unavailable(key)

    def _check_room(self, new: Ensemble) -> None:
        there = [entry.ensemble for entry in self._known.values()]
        taken = sum(len(one.model_dump_json()) for one in (*there, new))
        if len(there) >= MAX_ENSEMBLES or taken > MOST_BYTES:
            raise InvalidRequest(f"ensemble.name: {new.name}: {FULL}", field="ensemble.name")


def with_word(
    known: NamedEnsemble | None, speaker: str | None, said: Ensemble | None
) -> NamedEnsemble | None:
    """All that is said of a name after `speaker` (a host; None for the operators) has said `said` (None:
    nothing any more), where `known` was said before. Pure.

    Who alone said something may say something else in its place. Where others say it too, theirs goes on to
    count, and the new word comes after it.
    """
    words = list(known.words) if known is not None else []
    place = next((i for i, word in enumerate(words) if _says(word, speaker)), None)
    if place is not None:
        if words[place].ensemble == said:
            return known
        rest = _without(words[place], speaker)
        same_said = any(word.ensemble == said for word in words)
        if rest is not None:
            words[place] = rest
        elif said is not None and not same_said:
            words[place] = _with(EnsembleWord(ensemble=said), speaker)
            return NamedEnsemble(words=tuple(words))
        else:
            del words[place]
    if said is not None:
        same = next((i for i, word in enumerate(words) if word.ensemble == said), None)
        if same is None:
            words.append(_with(EnsembleWord(ensemble=said), speaker))
        else:
            words[same] = _with(words[same], speaker)
    return NamedEnsemble(words=tuple(words)) if words else None


def _says(word: EnsembleWord, speaker: str | None) -> bool:
    return word.operators if speaker is None else speaker in word.hosts


def _with(word: EnsembleWord, speaker: str | None) -> EnsembleWord:
    if speaker is None:
        return word.model_copy(update={"operators": True})
    return word.model_copy(update={"hosts": (*word.hosts, speaker)})


def _without(word: EnsembleWord, speaker: str | None) -> EnsembleWord | None:
    """A word without a speaker; None if nobody is left who says it."""
    if speaker is None:
        rest = word.model_copy(update={"operators": False})
    else:
        rest = word.model_copy(update={"hosts": tuple(host for host in word.hosts if host != speaker)})
    return rest if rest.hosts or rest.operators else None


def _unavailable(name: str) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the ensemble {name} could not be changed: others change it all the time",
        retry_after_s=RETRY_AFTER_S,
    )
