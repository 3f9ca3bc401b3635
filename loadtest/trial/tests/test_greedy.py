"""A tenant that asks for everything at once is told so, and nobody else notices."""

from __future__ import annotations

import pytest

from loadtest.bench.flood import Outcome, Replies
from loadtest.trial.greedy import FLOODS, LIMIT, Seen, faults, main

INBOX = b"_INBOX.flood."


def outcome(sent: int, **codes: int) -> Outcome:
    return Outcome(sent=sent, answered=sum(codes.values()), doubled=0, codes=codes, took_s=1.0)


def test_replies_are_counted_however_the_bytes_come() -> None:
    refusal = b'{"error":{"code":"overloaded"}}'
    replies = [
        b"MSG %s0 1 2\r\n{}\r\n" % INBOX,
        b"HMSG %s1 1 12 %d\r\nNATS/1.0\r\n\r\n%s\r\n" % (INBOX, 12 + len(refusal), refusal),
        b"PING\r\n",
        b"MSG %s1 1 0\r\n\r\n" % INBOX,
    ]
    for size in (1, 7, 1_000):
        heard, text = Replies(), b"".join(replies)
        for begin in range(0, len(text), size):
            heard.take(text[begin : begin + size])
        assert dict(heard.codes) == {"answered": 1, "overloaded": 1}
        assert dict(heard.times) == {0: 1, 1: 2}


@pytest.mark.parametrize(
    ("name", "ended", "words"),
    [
        ("status", outcome(9, answered=8, overloaded=1), ""),
        ("status", outcome(9, answered=8), "1 of the flood had no reply"),
        ("status", outcome(9, answered=8, internal=1), "the flood was told internal"),
        ("submits", outcome(9, answered=9), "told nothing of a limit"),
        ("submits", outcome(9, overloaded=2), ""),
        ("streams", outcome(9, overloaded=2), "free after 11.0 s"),
    ],
)
def test_what_is_not_as_it_should_be_is_named(name: str, ended: Outcome, words: str) -> None:
    free_s = 11.0 if name == "streams" else None
    found = "; ".join(faults(FLOODS[name], ended, LIMIT, {}, free_s))
    assert words in found and bool(words) == bool(found)


def test_what_the_neighbour_did_not_get_is_named() -> None:
    seen = {"beside": {"ask": Seen([1.0], ["overloaded"])}}
    (wrong,) = faults(FLOODS["status"], outcome(1, answered=1), None, seen, None)
    assert wrong == "the neighbour's ask failed beside the flood: overloaded"


def test_an_unknown_flood_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--floods", "water"]) == 2
    assert "--floods water: there are streams" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_answered_and_its_neighbour_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--floods", name, "--json"])
    assert code == 0, capsys.readouterr().out
