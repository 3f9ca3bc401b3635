"""Templates that would use the machine up: each ends in a moment, as messages that are refused."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from infra.demo_models.bench_model import CHAT_TEMPLATE
from schemas.errors import InvalidRequest
from services.engine.model.chat import sandbox as template_sandbox
from services.engine.model.chat.sandbox import LARGEST
from services.engine.model.chat.template import ChatTemplate
from services.engine.sequence.prompt import ChatMessage

HELLO = (ChatMessage("user", "Hello"),)
LONG_S = 30.0
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}"
HOSTILE = (
    LOOPS,
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ (2 ** 4000) ** (2 ** 60) }}",
    "{% set ns = namespace(n=3) %}{% for i in range(60) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
    "{{ 'x' * 10 ** 10 }}",
    "{{ [0] * 10 ** 10 }}",
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set s %}{{ ns.s }}{{ ns.s }}{% endset %}"
    "{% set ns.s = s %}{% endfor %}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"
    "{{ ns.l }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"
    "{{ ns.l | tojson }}",
    "{% set s = 'x' * 8000 %}{{ s.replace('x', s * 100).replace('x', s) }}",
    "{% set s = 'x' * 8000 %}{{ s | replace('x', s) | replace('x', s) }}",
    "{{ range(9999) | join('x' * 100000) }}",
    "{{ ('x' * 100000).join(range(9999) | map('string') | list) }}",
    "{{ 'x' | center(10000000000) }}",
    "{{ 'x'.ljust(10000000000) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 1000000000) }}",
    "{{ 'x' | indent(10000000000, true) }}",
    "{{ (1).to_bytes(10000000000, 'big') }}",
    "{{ messages | tojson(indent=1000000000) }}",
    "{{ lipsum(n=100000) }}",
)
COUNTED = "{% set ns = namespace(i=0) %}{% for m in messages * 3 %}{% set ns.i = ns.i + 1 %}{% endfor %}"
FIRST = "{% for m in messages %}{% if loop.first %}{% break %}{% endif %}{% endfor %}"
ORDINARY = (
    (CHAT_TEMPLATE, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"),
    ("{{ 'a' ~ 1 ~ ['b'] }}{{ [1, 2] | join(', ') }}", "a1['b']1, 2"),
    ("{{ messages | map(attribute='role') | join('+') }}", "user"),
    ("{{ messages | join('-', attribute='content') }}", "Hello"),
    (COUNTED + "{{ ns.i }}", "3"),
    ("{% macro say(x) %}<{{ x | trim }}>{% endmacro %}{{ say(' a ') }}", "<a>"),
    ("{{ '%s-%05d' % ('a', 7) }}", "a-00007"),
    ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
    ("{{ 'ab' | replace('b', 'c') }}{{ 'ab'.replace('b', 'd') }}", "acad"),
    ("{{ 'x'.join(['a', 'b']) }}{{ '{:>3}'.format(1) }}{{ 2 ** 10 }}", "axb  11024"),
    ("{{ 'ab'.split('b')[0] }}", "a"),
    (FIRST + "{{ {'b': [1]} | tojson }}", '{"b": [1]}'),
    ("{% set s %}{{ 'in' }}side{% endset %}{{ s | upper }}{{ 'a\nb' | indent(2) }}", "INSIDEa\n  b"),
)


@pytest.fixture(autouse=True)
def little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of what a template has otherwise."""
    for limit in ("MOST_SECONDS", "MOST_STEPS", "MOST_ENTRIES"):
        monkeypatch.setattr(template_sandbox, limit, getattr(template_sandbox, limit) / 10)


@pytest.mark.parametrize("source", HOSTILE)
def test_a_template_that_would_use_the_machine_up_is_cut_off(source: str) -> None:
    began_s = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="the chat template refuses") as caught:
            ChatTemplate(source).render(HELLO)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.field == "messages"
    assert most < 40 * LARGEST
    assert time.monotonic() - began_s < 10 * LONG_S


def test_no_name_of_a_template_hides_the_limits() -> None:
    for name in ("step", "environment", "joined_values"):
        with pytest.raises(InvalidRequest):
            ChatTemplate(f"{{% set {name} = 1 %}}{LOOPS}").render(HELLO)


def test_every_render_has_a_budget_of_its_own() -> None:
    template = ChatTemplate("{% for a in range(9000) %}{% endfor %}")
    for _ in range(12):
        template.render(HELLO)


@pytest.mark.parametrize(("source", "rendered"), ORDINARY)
def test_what_templates_use_works_as_in_jinja(source: str, rendered: str) -> None:
    assert ChatTemplate(source).render(HELLO) == rendered
