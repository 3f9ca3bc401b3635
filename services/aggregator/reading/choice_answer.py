"""Letters of options as answers: `(B)`, `Answer: B`, `b) 30`, or the text of the option itself."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache

from services.aggregator.reading.plain_text import WINDOW, clean, end_of, fold, last_match, without_thinking
from services.aggregator.reading.struck import hedges, without_options, without_ruled_out
from services.aggregator.reading.text_answer import open_answer, plain_words

_LABEL_ALONE = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_AFTER_LABEL = r"(?:[)\]:*_]|\.(?=\s|$|\*)|,(?=\s)|\s{1,4}[-=]\s|\s{1,4}(?:because|since)\b|\s*$)"
_LEADING_LABEL = re.compile(r"[\s(\[*_\"'`]{0,16}([A-Za-z])" + _AFTER_LABEL)
_ANSWER_MARK = re.compile(
    r"\b(?:answer[\"'*_]{0,4}(?:\s{1,8}(?:is|must\s+be|would\s+be)(?:\s{0,8}:)?|\s{0,8}[:=])"
    r"|(?:choice|option|letter)[\"']\s{0,4}:|(?:antwort|réponse|respuesta|risposta|resposta)\s{0,4}:)"
    r"|\\boxed\s{0,4}\{\s{0,4}(?:\\(?:text|textbf|mathrm|mathbf)\s{0,4}\{)?",
    re.IGNORECASE,
)
"""What an answer stands after; in JSON and LaTeX too, and as other languages say it."""
_NAMED_LABEL = re.compile(r"\b(?:option|choice)\s{1,4}[(\[*]{0,4}([A-Za-z])\b", re.IGNORECASE)
_UPPER_LABEL = re.compile(
    r"[\s(\[*_\"'`]{0,16}(?:option\s{1,4}|choice\s{1,4})?[(\[*_\"'`]{0,4}([A-Z])\b(?!['’])"
    r"(?!(?<=[AI])\s{1,4}(?!(?:because|since|as|for|is|was|and|or|but|by|due|so|which|with)\b)[a-z])"
)
"""A capital letter; `A` and `I` before another word are words themselves (`A dog`, `I think`)."""
_NOT = r"(?:not|isnt|never|neither|nor|cannot be|cant be|rather than|instead of)"
_IS_WRONG = r"(?:is|was|would be|are) (?:wrong|incorrect|false|not (?:correct|right|true|answer|it)|out)"
"""Around an option's text, both in plain words."""
_BRACKETED_LABEL = re.compile(r"[(\[]([A-Za-z])[)\]]")
_FINAL_LABEL = re.compile(r"(?<![^\s*_\"'`:])([A-Z])[\s.!*_\"'`]{0,16}$")


def choice(text: str, choices: Sequence[str] = ()) -> str | None:
    """The upper-case letter of the option that `text` chooses.

    Read in this order, first for what stands after the last `answer is` or `answer:`, then for the
    whole text: the text of an option and nothing else (where options are single letters, this goes
    before their labels); a letter alone (`B.`, `(B)`, `**b**`); a leading letter (`b) 30`). After
    that: `option B`; a letter in brackets; the text of an option within the text; a capital letter
    at the very end. Without `choices` all letters are labels.

    Two different options where one is due are no answer: `B or C`, or the label of one option with the text
    of another. What a text rules out (`not A`, `(A) is wrong`) or repeats (the list of options) is not its
    answer, and neither is what it only thinks.
    """
    read = _choice_of_short if len(text) <= _SHORT else _choice
    return read(text, tuple(choices))


def _choice(text: str, choices: tuple[str, ...]) -> str | None:
    said = without_thinking(text)
    options = _options(choices)
    whole = clean(said) if len(said) <= WINDOW else f"{clean(said[:WINDOW])}\n{end_of(said)}"
    if (exact := options.equal(whole)) is not None and not options.contradicts(whole):
        return exact
    whole = without_ruled_out(without_options(whole, options.labels, options.texts))
    marked = last_match(_ANSWER_MARK, whole)
    if marked:
        answer = whole[marked.end() :]
        if hedges(_first_line(answer), options.labels):
            return None
        if (found := options.opening(answer, _UPPER_LABEL)) is not None:
            return found or None
    if hedges(whole, options.labels):
        return None
    if (found := options.opening(whole, _LEADING_LABEL)) is not None:
        return found or None
    return (
        options.only(_NAMED_LABEL.findall(whole))
        or options.only(_BRACKETED_LABEL.findall(whole))
        or options.mentioned(whole)
        or options.only(_FINAL_LABEL.findall(whole))
    )


_SHORT = 256
"""Texts of at most so many characters are read once: several agents often say the same."""
_choice_of_short = lru_cache(maxsize=256)(_choice)


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


@lru_cache(maxsize=64)
def _options(choices: tuple[str, ...]) -> _Options:
    """All agents answer the same options: they are folded once a question, which takes longest of all."""
    return _Options(choices)


@lru_cache(maxsize=256)
def _forms(text: str) -> tuple[str, str | None]:
    """A text as the options are compared with it: its words, and its answer to an open question."""
    return plain_words(fold(text)), open_answer(text)


class _Options:
    """The options of one closed question, as they are looked for in a text."""

    def __init__(self, choices: Sequence[str]) -> None:
        self.labels = string.ascii_uppercase[: len(choices)] if choices else string.ascii_uppercase
        self.texts = [text.strip() for text in choices]
        self.words = [plain_words(fold(text[:WINDOW])) for text in choices]
        self.answers = [open_answer(text) for text in choices]

    def contradicts(self, line: str) -> bool:
        """Whether `line` is the label of one option with the text of another: `B. 7` where that is D's."""
        found = _LEADING_LABEL.match(line)
        label = self.label(found)
        if found is None or label is None or line.strip() in self.texts:
            return False
        named = self.equal(line[found.end() :])
        return named is not None and named != label

    def opening(self, text: str, bare_label: re.Pattern[str]) -> str | None:
        """The option that `text`, or its first line, begins with; empty if label and text contradict."""
        line = _first_line(text)
        if self.contradicts(line):
            return ""
        return (
            self.equal(text)
            or self.equal(line)
            or self.label(_LABEL_ALONE.fullmatch(text))
            or self.label(_LEADING_LABEL.match(line))
            or self.label(bare_label.match(line))
        )

    def equal(self, text: str) -> str | None:
        """The option whose text this is: to the letter, or word for word, or the only one of that number."""
        stripped = text.strip()
        if not self.texts or not stripped:
            return None
        if stripped in self.texts:
            return self.labels[self.texts.index(stripped)]
        words, answer = _forms(text)
        if words and words in self.words:
            return self.labels[self.words.index(words)]
        if answer and self.answers.count(answer) == 1:
            return self.labels[self.answers.index(answer)]
        return None

    def label(self, found: re.Match[str] | None) -> str | None:
        """The letter that was found, if it is a label."""
        return self.only([found.group(1)]) if found else None

    def only(self, letters: Sequence[str]) -> str | None:
        """The one label among `letters`; None if there are none or several."""
        labels = {letter.upper() for letter in letters} & set(self.labels)
        return labels.pop() if len(labels) == 1 else None

    def mentioned(self, text: str) -> str | None:
        """The one option whose text stands in `text` as whole words, and not as part of a longer option."""
        said = f" {plain_words(fold(text))} "
        found = []
        for option in sorted(set(filter(None, self.words)), key=len, reverse=True):
            if f" {option} " not in said:
                continue
            at = re.escape(option)
            kept, ruled_out = re.subn(rf" (?:{_NOT}) {at}(?= )| {at} {_IS_WRONG}(?= )", " | ", said)
            if f" {option} " in kept:
                found.append(self.labels[self.words.index(option)])
            if ruled_out or found:
                said = kept.replace(f" {option} ", " | ")
        return self.only(found)
