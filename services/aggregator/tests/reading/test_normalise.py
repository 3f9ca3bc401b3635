"""Texts of models and what is voted on. `None` abstains."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.commands import AnswerKind
from services.aggregator.reading.ballots import normalise
from services.aggregator.reading.number_answer import last_number, strict_number
from services.aggregator.reading.text_answer import without_any_punctuation, without_punctuation

CITIES = ("London", "Paris", "New York", "York")
KINDS: tuple[AnswerKind, ...] = ("auto", "choice", "number", "text")

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("B.", "B"),
        (" (B) ", "B"),
        ("**B**", "B"),
        ("[b]", "B"),
        ("b) 30", "B"),
        ("B: Paris", "B"),
        ("B - Paris", "B"),
        ("(B) Paris", "B"),
        ("B\n\nBecause it is.", "B"),
        ("Answer: B", "B"),
        ("Answer:\nB", "B"),
        ("Answer: **(B)**", "B"),
        ("answer = b", "B"),
        ("The answer is B", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B) Paris.", "B"),
        ("The correct answer is: B", "B"),
        ("The answer is B because of the river.", "B"),
        ("A is wrong. C is wrong. The answer is B", "B"),
        ("First I thought that the answer is A, but no: the answer is B.", "B"),
        ("I would go for option B", "B"),
        ("Surely choice (b) is right", "B"),
        ("It must be (B), I think", "B"),
        ("So I take B", "B"),
        ("So I take B.", "B"),
        ("\uff22", "B"),
    ],
)
def test_a_letter_is_found_however_it_is_dressed(text: str, letter: str) -> None:
    assert normalise(text, "choice") == letter
    assert normalise(text, "choice", ("31", "30", "32", "33")) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Paris", "B"),
        ("paris.", "B"),
        ("The Paris", "B"),
        ("The answer is Paris", "B"),
        ("The answer is Paris.", "B"),
        ("Answer: Paris", "B"),
        ("Paris\nIt has been since 987.", "B"),
        ("It is Paris, I think.", "B"),
        ("New York", "C"),
        ("It is New York.", "C"),
        ("York", "D"),
        ("A. London", "A"),
    ],
)
def test_the_text_of_an_option_stands_for_its_letter(text: str, letter: str) -> None:
    assert normalise(text, "choice", CITIES) == letter
    assert normalise(text, "auto", CITIES) == letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "...",
        "Berlin",
        "E",
        "Answer: F",
        "It is London or Paris",
        "I do not know",
        "either (A) or (B)",
    ],
)
def test_what_names_no_option_or_several_abstains(text: str) -> None:
    assert normalise(text, "choice", CITIES) is None
    assert normalise(text, "auto", CITIES) is None


def test_an_article_after_the_answer_is_no_letter() -> None:
    assert normalise("The answer is a dog", "choice", ("cow", "dog")) == "B"
    assert normalise("A dog.", "choice", ("cow", "dog")) == "B"
    assert normalise("The answer is a dog", "choice") is None
    assert normalise("I'm sure of nothing", "choice") is None


def test_options_that_are_single_letters_go_before_labels() -> None:
    symbols = ("H", "C", "B", "N")
    assert normalise("B", "choice", symbols) == "C"
    assert normalise("It is C.", "choice", symbols) == "B"
    assert normalise("A", "choice", symbols) == "A"


def test_options_that_are_numbers_are_compared_as_numbers() -> None:
    amounts = ("100", "1,000", "10,000")
    assert normalise("$1000.00", "choice", amounts) == "B"
    assert normalise("The answer is 1000", "choice", amounts) == "B"
    assert normalise("60 seconds", "choice", ("24", "60")) == "B"


def test_options_of_the_same_number_differ_in_their_unit() -> None:
    spans = ("5 minutes", "5 hours")
    assert normalise("5 hours", "choice", spans) == "B"
    assert normalise("It lasts 5 hours.", "choice", spans) == "B"
    assert normalise("5", "choice", spans) is None


def test_options_without_letters_are_compared_sign_by_sign() -> None:
    assert normalise("*", "choice", ("+", "*")) == "B"


def test_options_that_are_empty_or_alike_do_no_harm() -> None:
    assert normalise("yes", "choice", ("", "yes", "yes")) == "B"
    assert normalise("", "choice", ("", "yes")) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        ("18.", "18"),
        ("18.00", "18"),
        ("018", "18"),
        ("+18", "18"),
        ("$1,000.", "1000"),
        ("1,234,567.50", "1234567.5"),
        ("1\u202f000", "1000"),
        ("-5", "-5"),
        ("\u22125", "-5"),
        ("-$5.50", "-5.5"),
        ("$-5.50", "-5.5"),
        ("x = -5", "-5"),
        ("-0.0", "0"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("50%", "50"),
        ("50 percent", "50"),
        ("1/2", "0.5"),
        ("2/6", "1/3"),
        ("-2/6", "-1/3"),
        ("8/4", "2"),
        ("1 1/2", "1.5"),
        ("1½", "1.5"),
        ("1e6", "1000000"),
        ("2.5e-3", "0.0025"),
        ("\uff11\uff18", "18"),
        ("**18**", "18"),
        ("__18__", "18"),
        ("18km", "18"),
        ("covid-19", "19"),
        ("an 18-year-old", "18"),
        ("It is ...18", "18"),
        ("She has 16 - 3 - 4 = 9 eggs and makes 9 * 2 = $18", "18"),
        ("16 - 3 = 13\n#### 13", "13"),
        ("#### 18", "18"),
        ("#### $1,000", "1000"),
        ("#### 18 of 20", "18"),
        ("The answer is 18 dollars for 7 days", "18"),
        ("Final answer: 18 (after 7 days)", "18"),
        ("\\boxed{18} in 7 days", "18"),
        ("The answer is **$18**, not 20.", "18"),
    ],
)
def test_a_number_is_read_in_its_plain_form(text: str, number: str) -> None:
    assert normalise(text, "number") == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eighteen",
        "H2O",
        "12:30",
        "2024-01-15",
        "1.2.3",
        "3,14",
        "10^6",
        "1/0",
        "10-12",
        "9" * 200,
        "1" + ",1" * 50,
    ],
)
def test_what_is_no_number_abstains(text: str) -> None:
    assert normalise(text, "number") is None


def test_without_a_mark_the_last_number_counts_and_this_is_the_trap() -> None:
    trap = "She earns 18 dollars every day for 7 days"
    assert normalise(trap, "number") == last_number(trap) == "7"
    assert strict_number(trap) is None
    assert strict_number(f"{trap}\n#### 18") == "18"
    assert normalise(f"{trap}\n#### 18\n(for 7 days)", "number") == "18"
    assert last_number(f"{trap}\n#### 18\n(for 7 days)") == "7"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Paris", "paris"),
        ("  The   Blue\tWhale! ", "blue whale"),
        ("PARIS.", "paris"),
        ("an apple, a pear", "apple pear"),
        ("The answer is Paris.", "paris"),
        ("I think the answer is: Paris!", "paris"),
        ("Final answer: Paris", "paris"),
        ("Straße", "strasse"),
        ("Cafe\u0301", "café"),
        ("\ufb01sh", "fish"),
        ("don\u2019t", "dont"),
        ("U.S.A.", "usa"),
        ("co-operate", "co operate"),
        ("vitamin A", "vitamin a"),
        ("The", "the"),
        ("C#", "c#"),
        ("C++", "c++"),
        ("3.5 metres", "3.5 metres"),
        ("1,000 ships", "1000 ships"),
        ("-5 degrees", "-5 degrees"),
        ("`Paris`", "paris"),
        ("東京。", "東京"),
    ],
)
def test_a_short_text_is_read_as_its_words(text: str, words: str) -> None:
    assert normalise(text, "text") == words


@pytest.mark.parametrize("text", ["", " \n ", "?!", "\u200b"])
def test_a_text_without_words_abstains(text: str) -> None:
    for kind in KINDS:
        assert normalise(text, kind) is None


def test_long_texts_are_equal_answers_only_if_they_are_equal() -> None:
    essay = "whales sing in the deep sea " * 400
    assert normalise(essay, "text") == normalise(essay.upper()[:4_000] + essay[4_000:], "text")
    assert normalise(essay, "text") != normalise(essay + "and dolphins", "text")
    assert len(normalise(essay, "text") or "") <= 256


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("18", "18"),
        ("$18.00", "18"),
        ("18 dollars", "18"),
        ("It is 18.", "18"),
        ("x = 18", "18"),
        ("50%", "50"),
        ("20 °C", "20"),
        ("The answer is 18.", "18"),
        ("3 and 4 make 7. So the answer is 7 days.", "7"),
        ("3 + 4 = 7, so the answer is 7", "7"),
        ("We add 3 and 4. #### 7", "7"),
        ("Apollo 11", "apollo 11"),
        ("7 dwarfs", "7 dwarfs"),
        ("1 January", "1 january"),
        ("2024-01-15", "2024 01 15"),
        ("They remember for 3 months", "they remember for 3 months"),
        ("Paris", "paris"),
    ],
)
def test_without_a_kind_a_number_is_read_only_where_little_stands_around_it(text: str, answer: str) -> None:
    assert normalise(text, "auto") == answer


@given(st.text())
def test_numbers_and_texts_are_already_in_their_own_form(text: str) -> None:
    for kind in ("number", "text"):
        once = normalise(text, kind)
        assert once is None or normalise(once, kind) == once


@given(st.text(alphabet="0123456789.,/-+$e% #abc", max_size=30))
def test_numbers_are_already_in_their_own_form_whatever_stands_around_them(text: str) -> None:
    once = normalise(text, "number")
    assert once is None or normalise(once, "number") == once


@given(
    st.lists(
        st.sampled_from(["the", "a", "an", "answer", "is", "final", ".", "'", "-", "5", "word", "\u0301"])
    )
)
def test_texts_are_already_in_their_own_form_whatever_they_are_made_of(words: list[str]) -> None:
    for glue in ("", " "):
        once = normalise(glue.join(words), "text")
        assert once is None or normalise(once, "text") == once


@pytest.mark.parametrize(
    "text", ["0'-0", "A.\u0300-0", "1'.5", "the the " * 600, "answer is " * 600, "a" * 5_000]
)
def test_what_is_taken_out_changes_the_neighbours_of_what_stays_only_once(text: str) -> None:
    once = normalise(text, "text")
    assert once is not None
    assert normalise(once, "text") == once


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_a_number_keeps_its_value(value: float) -> None:
    read = normalise(f"The answer is {value}.", "number")
    assert read is not None
    assert float(read) == float(value)


@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_the_short_way_for_ascii_is_the_long_one(text: str) -> None:
    assert without_punctuation(text).split() == without_any_punctuation(text).split()


@given(
    st.text(alphabet=st.characters(), max_size=200),
    st.sampled_from(KINDS),
    st.lists(st.text(alphabet=st.characters(), max_size=20), max_size=26),
)
def test_reading_never_fails(text: str, kind: AnswerKind, choices: list[str]) -> None:
    answer = normalise(text, kind, tuple(choices))
    assert answer is None or (answer and answer == answer.strip())


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1",
        "1,",
        "-",
        " ",
        "(",
        "answer is ",
        "answer: 1 ",
        "#### ",
        "\u0301\u0323",
        "\ufdfa",
        "9/",
        "B ",
        "*_",
        "\n",
        "'",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_megabyte_is_read_about_as_fast_as_a_page(piece: str, kind: AnswerKind) -> None:
    text = (piece * MILLION)[:MILLION]
    started = time.process_time()
    normalise(text, kind, (text, "Paris") if kind in ("auto", "choice") else ())
    assert time.process_time() - started < 30, "reading must not take quadratic time"
