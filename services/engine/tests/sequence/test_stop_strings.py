from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.engine.sequence.text_stream import StopStrings

LETTERS = st.text(alphabet="ab", min_size=1, max_size=4)


def test_text_before_a_stop_string_is_shown_and_nothing_of_it() -> None:
    stops = StopStrings(("END",))
    assert stops.feed("one two END three") == ("one two ", "END")


def test_what_may_begin_a_stop_string_is_held_until_it_is_known() -> None:
    stops = StopStrings(("END",))
    assert stops.feed("one E") == ("one ", None)
    assert stops.feed("N") == ("", None)
    assert stops.feed("A") == ("ENA", None)


def test_what_was_held_is_shown_when_the_text_ends() -> None:
    stops = StopStrings(("END",))
    stops.feed("one EN")
    assert stops.flush() == "EN"
    assert stops.flush() == ""


def test_the_earliest_stop_string_wins_and_of_two_at_one_place_the_longer() -> None:
    assert StopStrings(("c", "b")).feed("abc") == ("a", "b")
    assert StopStrings(("b", "bc")).feed("abc") == ("a", "bc")


def test_without_stop_strings_nothing_is_held() -> None:
    assert StopStrings(()).feed("anything") == ("anything", None)


@given(pieces=st.lists(LETTERS, max_size=12), stops=st.lists(LETTERS, max_size=3).map(tuple))
def test_pieces_show_what_the_whole_text_would(pieces: list[str], stops: tuple[str, ...]) -> None:
    text, shown, matcher, met = "".join(pieces), "", StopStrings(stops), None
    for piece in pieces:
        new, met = matcher.feed(piece)
        shown += new
        if met:
            break
    shown += matcher.flush()
    places = [text.find(stop) for stop in stops if stop in text]
    assert (met is not None) == bool(places)
    if met is None:
        assert shown == text
    else:
        # A longer stop string may begin before the first one that is complete.
        assert text.startswith(shown + met)
        assert not any(stop in shown for stop in stops)
