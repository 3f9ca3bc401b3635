from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.engine.sequence.answer_reader import DecodedPiece
from services.engine.sequence.text_stream import TextStream


def test_a_character_is_shown_when_its_last_byte_has_come() -> None:
    stream = TextStream(())
    first, last = "é".encode()[:1], "é".encode()[1:]
    assert stream.feed(first) == (DecodedPiece(), None)
    assert stream.feed(last) == (DecodedPiece("é"), None)


def test_half_a_character_at_the_end_is_left_out() -> None:
    stream = TextStream(())
    stream.feed(b"caf")
    stream.feed("é".encode()[:1])
    assert stream.flush() == DecodedPiece()
    assert stream.text == "caf"


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    stream = TextStream(())
    assert stream.feed(b"a\xffb") == (DecodedPiece("a�b"), None)


def test_a_stop_string_is_found_across_pieces_and_characters() -> None:
    stream = TextStream(("é!",))
    raw = "oé!".encode()
    met = [stream.feed(raw[i : i + 1])[1] for i in range(len(raw))]
    assert met == [None, None, None, "é!"]
    assert stream.text == "o"


@given(text=st.text(max_size=30), cut=st.integers(1, 5))
def test_the_pieces_of_a_text_join_to_the_text(text: str, cut: int) -> None:
    raw, stream, shown = text.encode(), TextStream(("\x00never",)), ""
    for start in range(0, len(raw), cut):
        shown += stream.feed(raw[start : start + cut])[0].text
    shown += stream.flush().text
    assert shown == stream.text == text
