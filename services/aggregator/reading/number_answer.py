"""Numbers as answers: `$1,000.` is 1000, `18.00` is 18.

Every pattern here has bounded repetitions or nothing after them, so none of them backtracks far.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from services.aggregator.reading.plain_text import end_of, last_match, without_thinking

_LONGEST_NUMBER = 128

_DIGIT = re.compile("[0-9]")

# Everything from a sign or digit on that belongs to the same figure, well formed or not, so that a
# time (12:30), a date (2024-01-15) or a power (10^6) is seen as a whole and not by its last digits.
_FIGURE = re.compile(
    r"(?<![^\W_])(?:[-+][$€£¥]?|[$€£¥][-+]?)?"
    r"(?:[0-9]{1,9}[ ][0-9]{1,9}/|(?<![\w.])\.)?[0-9][0-9.,:/^-]*"
    r"(?:(?<=[0-9])[eE][-+]?[0-9]{1,2}(?!\w))?"
)
_PLAIN_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)
_FRACTION = re.compile(r"(?P<sign>[-+]?)(?:(?P<whole>[0-9]+) )?(?P<above>[0-9]+)/(?P<below>[0-9]+)")
_GROUPED = re.compile(r"(?<![\w.,:/'])([0-9]{1,3})((?:[ '_][0-9]{3})+)(?![\w'])")
"""Thousands apart by blanks, apostrophes or underscores: `12 345`, `1'000`, `1_000`."""
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s?\{([0-9]{1,9})\}\s?\{([0-9]{1,9})\}")
_NOT_MEANT = re.compile(r"(?:\bnot|\bnever|n't\s+be|[0-9][0-9.,]{0,20}\s{1,3}or)\s{1,3}$", re.IGNORECASE)
_OTHER_FIGURE = re.compile(r"\s{1,3}or\s{1,3}[-+$€£¥]?[0-9]", re.IGNORECASE)
_LOOK_BACK = 32
_NO_CURRENCY = str.maketrans("", "", "$€£¥")
_MARK = r"(?:\#\#\#\#|\\boxed\s{0,4}\{|answer\s{1,8}is|answer\s{0,8}[:=])"
_MARKED_FIGURE = re.compile(_MARK + r"[\s:=*_\"'`(\\]{0,16}(" + _FIGURE.pattern + ")", re.IGNORECASE)
_HASHED_FIGURE = re.compile(r"\#\#\#\#\s{0,8}(" + _FIGURE.pattern + ")")


def number(text: str) -> str | None:
    """The number that `text` gives as its answer: the marked one if there is one, else the last one.

    A mark is `####`, `\\boxed{`, `answer is` or `answer:` directly before the number; the last one
    counts. Without a mark this is the usual last-number policy, and it has its trap: in `She earns
    18 dollars a day for 7 days` it reads 7. A last figure that is not a number (a time, a date, a
    decimal comma) gives None, never an earlier number. Units, currencies and the percent sign are
    dropped: `50%` is 50.
    """
    end = _plain_figures(end_of(without_thinking(text)))
    marked = last_match(_MARKED_FIGURE, end)
    if marked:
        return None if _OTHER_FIGURE.match(end, marked.end()) else _read_figure(marked.group(1))
    return last_number(text)


def strict_number(text: str) -> str | None:
    """The number after the last `####`, as in the GSM8K data set, and nothing else."""
    hashed = last_match(_HASHED_FIGURE, _plain_figures(end_of(without_thinking(text))))
    return _read_figure(hashed.group(1)) if hashed else None


def last_number(text: str) -> str | None:
    """The last figure of `text`, wherever it stands; None if it is not a number, or not meant as the answer.

    `not 12` says what it is not, and `12 or 13` does not say which.
    """
    end = _plain_figures(end_of(without_thinking(text)))
    last = last_match(_FIGURE, end)
    if last is None or _NOT_MEANT.search(end[max(0, last.start() - _LOOK_BACK) : last.start()]):
        return None
    return _read_figure(last.group())


def _plain_figures(text: str) -> str:
    """`text` with grouped thousands in one piece, and LaTeX's fractions with a stroke."""
    joined = _GROUPED.sub(lambda found: found[1] + re.sub("[ '_]", "", found[2]), text)
    return _LATEX_FRACTION.sub(r"\1/\2", joined)


_LEAD_IN_WORDS = (
    "so thus therefore hence then and the final correct answer result total sum number it that this there "
    "he she they we i is are was were be equals equal makes make gives has have had got get exactly about "
    "approximately around roughly of to x y n boxed"
)
_UNIT_WORDS = (
    "percent dollar dollars cent cents euro euros pound pounds second seconds minute minutes hour hours day "
    "days week weeks month months year years degree degrees celsius fahrenheit kelvin mm millimetre "
    "millimetres millimeter millimeters cm centimetre centimetres centimeter centimeters m metre metres "
    "meter meters km kilometre kilometres kilometer kilometers mile miles inch inches foot feet yard yards "
    "mg milligram milligrams g gram grams kg kilogram kilograms ton tons tonne tonnes ounce ounces ml "
    "millilitre millilitres milliliter milliliters l litre litres liter liters s h min c f"
)
_LEAD_IN = frozenset(_LEAD_IN_WORDS.split())
_UNITS = frozenset(_UNIT_WORDS.split())
_SENTENCE_END = re.compile(r"[.!?]\s+|\n")


def bare_number(text: str) -> str | None:
    """The number in `text` if the text, or its last sentence, is hardly more than that number.

    Around it may stand a lead-in (`the answer is`, `so it makes`, `x =`) and one unit (`dollars`).
    """
    end = end_of(text)
    if not _DIGIT.search(end):
        return None
    marked = last_match(_MARKED_FIGURE, end)
    if marked and not end[marked.end() :].strip(" \t\n.*_`})]$%\\"):
        return _read_figure(marked.group(1))
    sentence = _last_sentence(end)
    figures = list(_FIGURE.finditer(sentence))
    if len(figures) != 1:
        return None
    before = _surrounding_words(sentence[: figures[0].start()])
    after = _surrounding_words(sentence[figures[0].end() :])
    if _LEAD_IN.issuperset(before) and len(after) <= 1 and _UNITS.issuperset(after):
        return _read_figure(figures[0].group())
    return None


def _last_sentence(text: str) -> str:
    return next((part for part in reversed(_SENTENCE_END.split(text)) if part.strip()), "")


def _surrounding_words(text: str) -> list[str]:
    """The words around a number. Signs of punctuation count for nothing, but other symbols are words."""
    return re.sub(r"[=:*_\"'`()\[\]{}\\$€£¥%°#.,!?;-]", " ", text.casefold()).split()


def _read_figure(figure: str) -> str | None:
    """The plain form of a figure, or None if it is no number."""
    figure = figure.translate(_NO_CURRENCY).rstrip(".,:/^-").lower()
    if len(figure) > _LONGEST_NUMBER:
        return None
    if "/" in figure:
        return _read_fraction(figure)
    mantissa, _, exponent = figure.partition("e")
    if not _PLAIN_NUMBER.fullmatch(mantissa):
        return None
    return _plain(Decimal(f"{mantissa.replace(',', '')}e{exponent or 0}"))


def _read_fraction(figure: str) -> str | None:
    parts = _FRACTION.fullmatch(figure)
    if parts is None or int(parts["below"]) == 0:
        return None
    value = Fraction(int(parts["above"]), int(parts["below"])) + int(parts["whole"] or 0)
    value = -value if parts["sign"] == "-" else value
    twos_and_fives = _factors(value.denominator, 2) + _factors(value.denominator, 5)
    shifted = value * 10**twos_and_fives
    if shifted.denominator == 1:
        return _plain(Decimal(f"{shifted.numerator}e-{twos_and_fives}"))
    lowest_terms = f"{value.numerator}/{value.denominator}"
    return lowest_terms if len(lowest_terms) <= _LONGEST_NUMBER else None


def _factors(value: int, prime: int) -> int:
    """How often `prime` divides `value`."""
    count = 0
    while value % prime == 0:
        value //= prime
        count += 1
    return count


def _plain(value: Decimal) -> str | None:
    """Digits without exponent, needless zeros or a sign of zero."""
    if not value:
        return "0"
    digits = format(value, "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits if len(digits) <= _LONGEST_NUMBER else None
