"""Many jobs: each is done once, however often the run ends before its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path

import pytest

from schemas.errors import BrokerUnavailable, ChoirError, MeshUnreachable, Overloaded
from schemas.message import Struct
from services.client.bulk.journal import RecordJournal
from services.client.bulk.runner import run_bulk, until_taken


class Square(Struct):
    """What came of a number."""

    number: int
    square: int


class Squares:
    """Squares numbers when it is let; `errors` are raised for some of them."""

    def __init__(self, path: Path, room: int = 2) -> None:
        self._path = path
        self._room = room
        self.asked: list[int] = []
        self.cancelled: list[int] = []
        self.kept_before_after: list[bool] = []
        self.errors: dict[int, ChoirError] = {}
        self.held: set[int] = set()
        self.all_held = asyncio.Event()

    def journal(self) -> RecordJournal[Square]:
        return RecordJournal(self._path, Square, lambda kept: str(kept.number), field="f", run="test")

    def run(self, journal: RecordJournal[Square], numbers: Iterable[int]) -> AsyncGenerator[Square, None]:
        async def after(number: int, done: Square) -> None:
            self.kept_before_after.append(journal.records[str(number)] == done)

        return run_bulk(numbers, self._work, journal, str, lambda: self._room, after=after)

    async def all_of(self, numbers: Iterable[int]) -> list[int]:
        """The squares, in order, by one run from its beginning to its end."""
        with self.journal() as journal:
            return sorted([done.square async for done in self.run(journal, numbers)])

    async def _work(self, number: int) -> Square:
        self.asked.append(number)
        if self.held and self.held <= set(self.asked):
            self.all_held.set()
        try:
            await (asyncio.Event().wait() if number in self.held else asyncio.sleep(0))
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        if number in self.errors:
            raise self.errors[number]
        return Square(number=number, square=number**2)


@pytest.fixture
def squares(tmp_path: Path) -> Squares:
    return Squares(tmp_path / "journal")


async def test_what_is_done_is_not_done_again(squares: Squares) -> None:
    assert await squares.all_of([1, 2]) == [1, 4]
    assert await squares.all_of([1, 2, 3]) == [9]
    assert squares.asked == [1, 2, 3]


async def test_what_is_handed_on_has_been_kept_and_so_has_what_its_job_ends_with(squares: Squares) -> None:
    with squares.journal() as journal:
        async for done in squares.run(journal, range(5)):
            assert journal.records[str(done.number)] == done
    assert squares.kept_before_after == [True] * 5


async def test_an_error_ends_the_run_and_the_next_one_does_the_rest(squares: Squares) -> None:
    squares.errors = {2: MeshUnreachable("gone")}
    squares.held = {3}
    with pytest.raises(MeshUnreachable, match="gone"):
        await squares.all_of(range(8))
    assert squares.cancelled == [3]
    assert squares.asked == [0, 1, 2, 3], "nothing is begun after the error"
    squares.errors, squares.held = {}, set()
    assert await squares.all_of(range(8)) == [4, 9, 16, 25, 36, 49]


async def test_a_run_that_is_given_up_cancels_what_is_under_way(squares: Squares) -> None:
    squares.held = {1, 2}
    with squares.journal() as journal:
        async with aclosing(squares.run(journal, range(9))) as run:
            assert (await anext(run)).number == 0
            waiting = asyncio.ensure_future(anext(run))
            async with asyncio.timeout(30):
                await squares.all_held.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    assert sorted(squares.cancelled) == [1, 2]


class Refusing:
    """Refuses a question with each error in turn, and then answers."""

    def __init__(self, *errors: ChoirError) -> None:
        self._errors = list(errors)

    async def ask(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


async def test_what_is_not_taken_is_asked_again_and_the_mesh_says_when() -> None:
    refusing = Refusing(Overloaded("full", retry_after_s=0.001), BrokerUnavailable("busy"))
    patience_s = {Overloaded: 60.0, BrokerUnavailable: 60.0}
    assert await until_taken(refusing.ask, patience_s, pause_s=0.001) == "answer"


async def test_a_pause_is_never_longer_than_is_said() -> None:
    refusing = Refusing(Overloaded("full", retry_after_s=3600.0))
    async with asyncio.timeout(30):
        assert await until_taken(refusing.ask, {Overloaded: 60.0}, longest_pause_s=0.001) == "answer"


async def test_patience_ends_for_each_error_in_its_own_time() -> None:
    refusing = Refusing(Overloaded("full"), BrokerUnavailable("gone"), Overloaded("never asked"))
    with pytest.raises(BrokerUnavailable):
        await until_taken(refusing.ask, {Overloaded: 60.0, BrokerUnavailable: 0.0}, pause_s=0.001)


async def test_another_error_is_raised_at_once() -> None:
    refusing = Refusing(MeshUnreachable("gone"))
    with pytest.raises(MeshUnreachable):
        await until_taken(refusing.ask, {Overloaded: 60.0})
