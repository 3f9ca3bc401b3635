"""The sandbox of chat templates: Jinja's immutable one, with limits to time, steps and what is made.

Jinja keeps a template from the machine, not from using it up: `9 ** (9 ** 9)` holds Python's lock for hours,
and a text that is joined to itself forty times fills any memory. So each turn of a loop and each macro counts
as a step, and texts, lists and numbers have a largest size.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_environment

MOST_STEPS = 1_000_000
MOST_SECONDS = 2.0
"""Of computing in one thread, waiting not counted."""
STEPS_BETWEEN_LOOKS = 16
LARGEST = 8 * 1024**2
"""Characters of a text, entries of a list. The largest prompt is a megabyte."""
MOST_ENTRIES = 200_000
"""Of a list and the lists in it, where a text is made of them."""
LARGEST_NUMBER_BITS = 4_096
LARGEST_WIDTH = 10_000
"""What a number may say of how wide a text becomes."""
CLOSED = ("lipsum",)
WIDE = re.compile(r"%[^%a-zA-Z]*(\d{5}|\*)|\{[^{}]*(\d{5}|\{)")
OPERATORS = frozenset(("*", "**", "+", "%"))
LIMITED_FILTERS = (
    "batch", "center", "format", "indent", "pprint", "replace", "slice", "string", "tojson", "wordwrap",
)  # fmt: skip


class TooMuch(SecurityError):
    """Raised in a template that takes too long, or makes something too large."""


class _Budget(threading.local):
    """What one render has left; each thread renders for itself."""

    steps = MOST_STEPS
    until_s = 0.0


class BoundedTemplate(Template):
    """A template whose every render has a budget of its own."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """Raises TooMuch."""
        assert isinstance(self.environment, BoundedEnvironment)
        self.environment.begin()
        return super().render(*args, **kwargs)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Where chat templates are compiled and rendered."""

    template_class = BoundedTemplate
    intercepted_binops = OPERATORS

    def __init__(self) -> None:
        """Nothing is computed while a template is compiled: that would be before there are limits."""
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], optimized=False)
        self._budget = _Budget()
        self.finalize = _printable
        self.filters["join"] = _join
        for name in CLOSED:
            self.globals.pop(name, None)
        for name in LIMITED_FILTERS:
            self.limit(name, self.filters[name])

    def limit(self, name: str, function: Callable[..., Any]) -> None:
        """Takes a filter that gets nothing from which it makes far more."""
        self.filters[name] = _limited(function, name)

    def begin(self) -> None:
        """A render begins in this thread."""
        self._budget.steps = MOST_STEPS
        self._budget.until_s = time.thread_time() + MOST_SECONDS

    @property
    def step(self) -> None:
        """One turn of a loop or one call of a macro. Raises TooMuch.

        No method: each call in a template goes through the sandbox's checks, which take longer than this.
        """
        budget = self._budget
        budget.steps -= 1
        if budget.steps < 0:
            raise TooMuch(f"it takes more than {MOST_STEPS} steps")
        if budget.steps % STEPS_BETWEEN_LOOKS == 0 and time.thread_time() > budget.until_s:
            raise TooMuch(f"it takes more than {MOST_SECONDS:g} s")

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """What a template or a macro writes, in one piece."""
        kept: list[str] = []
        size = 0
        for piece in pieces:
            size += len(piece)
            _require_size(size)
            kept.append(piece)
        return "".join(kept)

    def joined_values(self, *values: Any) -> str:
        """The operator `~`."""
        return self.concat(str(_printable(value)) for value in values)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator whose result may be far larger than what it takes."""
        if operator == "+":
            _require_size(_size(left) + _size(right))
        elif operator == "%" and isinstance(left, str):
            _check_growth("%", (left, *(right if isinstance(right, tuple) else (right,))))
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _require_bits(left.bit_length() * abs(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A function or method: those of texts and numbers may make large ones."""
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja has a `format` of its own around that of texts
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str | bytes | int | float):
            _check_growth(name, (owner, *args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        for kind in (nodes.For, nodes.Macro, nodes.CallBlock):
            for found in template.find_all(kind):
                body: list[nodes.Node] = getattr(found, "body")  # noqa: B009  (their common base has none)
                body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute("step")))
        _replace_concats(template)
        template.set_environment(self)
        return template


def _call(name: str, arguments: list[nodes.Expr]) -> nodes.Call:
    """A call of the environment's, which no name of a template can hide."""
    return nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)


def _replace_concats(node: nodes.Node) -> None:
    for field, value in node.iter_fields():
        if isinstance(value, list):
            value[:] = [_without_concat(item) for item in value]
        else:
            setattr(node, field, _without_concat(value))


def _without_concat(value: Any) -> Any:
    if isinstance(value, nodes.Node):
        _replace_concats(value)
        if isinstance(value, nodes.Concat):
            return _call("joined_values", value.nodes)
    return value


def _limited(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A filter that makes no large text of small ones. What Jinja has noted on it stays."""
    takes = 1 if hasattr(function, "jinja_pass_arg") else 0

    def limited(*args: Any, **kwargs: Any) -> Any:
        _check_growth(name, (*args[takes:], *kwargs.values()))
        return function(*args, **kwargs)

    limited.__dict__.update(function.__dict__)
    return limited


@pass_environment
def _join(environment: BoundedEnvironment, value: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    """Jinja's filter `join`, piece by piece."""
    values = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    between = (piece for entry in values for piece in (d, str(_printable(entry))))
    next(between, None)
    return environment.concat(between)


def _check_growth(name: str, values: tuple[Any, ...]) -> None:
    """What a function of texts is given: the text itself comes first."""
    text, *others = map(_printable, values)
    if any(isinstance(other, int) and abs(other) > LARGEST_WIDTH for other in others):
        raise TooMuch(f"a number above {LARGEST_WIDTH} says how wide a text is to be")
    if name in ("format", "format_map", "%") and isinstance(text, str) and WIDE.search(text):
        raise TooMuch("a format says how wide a text is to be")
    if name == "replace" and len(others) > 1:
        _require_size((_size(text) + 1) * max(1, _size(others[1])))
    if name == "join" and others and isinstance(others[0], list | tuple):
        _require_size(sum(map(_size, others[0])) + len(others[0]) * _size(text))
    if name == "translate":
        raise TooMuch("translate is not open here")


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _require_bits(left.bit_length() + right.bit_length())
    elif isinstance(left, int):
        _require_size(_size(right) * left)
    elif isinstance(right, int):
        _require_size(_size(left) * right)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _printable(value: Any) -> Any:
    """A value, if the text of it is not too large. A list that holds one twice, which holds one twice, has
    few entries and a text without end."""
    if not isinstance(value, list | tuple | dict | set):
        return value
    waiting, size, entries = [value], 0, 0
    while waiting:
        inner = waiting.pop()
        size += _size(inner)
        entries += 1
        _require_size(size)
        if entries > MOST_ENTRIES:
            raise TooMuch(f"it makes something with more than {MOST_ENTRIES} entries")
        if isinstance(inner, dict):
            waiting.extend(inner.keys())
            waiting.extend(inner.values())
        elif isinstance(inner, list | tuple | set):
            waiting.extend(inner)
    return value


def _require_size(size: int) -> None:
    if size > LARGEST:
        raise TooMuch(f"it makes something with more than {LARGEST} characters or entries")


def _require_bits(bits: int) -> None:
    if bits > LARGEST_NUMBER_BITS:
        raise TooMuch("it makes too large a number")
