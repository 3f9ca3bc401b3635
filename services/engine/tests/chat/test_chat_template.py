from __future__ import annotations

import pytest

from infra.demo_models.bench_model import CHAT_TEMPLATE
from schemas.errors import InvalidRequest, ModelUnusable
from services.engine.model.chat.template import ChatTemplate
from services.engine.sequence.prompt import ChatMessage

HELLO = (ChatMessage("system", "Be brief."), ChatMessage("user", "Hello <you>"))


def test_messages_are_written_down_as_the_model_was_trained_to_read_them() -> None:
    assert ChatTemplate(CHAT_TEMPLATE).render(HELLO) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHello <you><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_special_tokens_and_functions_of_hugging_face_templates_are_there() -> None:
    source = "{{ bos_token }}{{ messages | tojson }}{{ strftime_now('%Y') | length }}{{ eos_token }}"
    rendered = ChatTemplate(source, bos_text="<s>", eos_text="</s>").render(HELLO[1:])
    assert rendered == '<s>[{"role": "user", "content": "Hello <you>"}]4</s>'


def test_a_model_without_a_template_reads_plain_text() -> None:
    assert ChatTemplate(None).render(HELLO) == "Be brief.\n\nHello <you>"


def test_messages_that_the_template_refuses_are_an_invalid_request() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
        template.render(HELLO)
    assert caught.value.field == "messages"


def test_a_chat_without_messages_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest):
        ChatTemplate(CHAT_TEMPLATE).render(())


def test_a_template_that_is_no_jinja_makes_the_model_unusable() -> None:
    with pytest.raises(ModelUnusable, match="line 2"):
        ChatTemplate("fine\n{% for %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}",
        "{{ " + "not " * 5_000 + "1 }}",
        "{% for a in b %}" * 300 + "{% endfor %}" * 300,
        "{% if a %}" * 150 + "{% endif %}" * 150,
        "{{ a }}" * 20_000,
    ],
    ids=["brackets", "words", "loops", "conditions", "length"],
)
def test_a_template_that_cannot_be_compiled_makes_the_model_unusable_and_nothing_else(source: str) -> None:
    with pytest.raises(ModelUnusable, match="chat template"):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ messages[9].content + 1 }}",
    ],
)
def test_a_hostile_template_gets_nowhere(source: str) -> None:
    try:
        rendered = ChatTemplate(source).render(HELLO)
    except InvalidRequest:
        return
    assert rendered == ""
