"""The official Anthropic client before a gateway: python anthropic_client.py ADDRESS MODEL [ENSEMBLE]"""

from __future__ import annotations

import sys

import anthropic

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Lima", "Paris"]}}, "required": ["city"]}
GREEDY = {"extra_body": {"temperature": 0}}
WEATHER = {"name": "weather", "description": "Tells the weather.", "input_schema": CITY}


def main(address: str, model: str, *ensembles: str) -> None:
    """Asks in every way; an error ends the program."""
    client = anthropic.Anthropic(base_url=address, api_key="none", max_retries=0, timeout=120)
    for name in (model, *ensembles):
        plain = client.messages.create(model=name, max_tokens=24, messages=HELLO, **GREEDY)
        assert plain.content[0].text, plain
        with client.messages.stream(model=name, max_tokens=24, messages=HELLO, **GREEDY) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert text == final.content[0].text == plain.content[0].text, (text, plain)
        assert final.usage.output_tokens == plain.usage.output_tokens > 0
        assert final.stop_reason == plain.stop_reason in ("end_turn", "max_tokens")
    called = client.messages.create(
        model=model,
        max_tokens=64,
        messages=HELLO,
        tools=[WEATHER],
        tool_choice={"type": "any"},
        **GREEDY,
    )
    use = next(block for block in called.content if block.type == "tool_use")
    assert called.stop_reason == "tool_use"
    assert use.input["city"] in ("Lima", "Paris"), use
    with client.messages.stream(
        model=model,
        max_tokens=64,
        messages=HELLO,
        tools=[WEATHER],
        tool_choice={"type": "any"},
        **GREEDY,
    ) as stream:
        assert stream.get_final_message().content[-1].input == use.input
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
    talk = [*HELLO, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(model=model, max_tokens=16, messages=talk, tools=[WEATHER]).content
    schema = {"format": {"type": "json_schema", "schema": CITY}}
    formed = client.messages.create(model=model, max_tokens=64, messages=HELLO, output_config=schema)
    assert '"city"' in formed.content[0].text, formed
    counted = client.messages.count_tokens(model=model, messages=HELLO, system="Be brief.")
    assert counted.input_tokens > 8
    try:
        client.messages.create(model="nobody", max_tokens=8, messages=HELLO)
    except anthropic.NotFoundError as error:
        assert "nobody" in error.message, error
    else:
        raise AssertionError("an unknown model was not refused")
    stream = client.messages.create(model=model, max_tokens=4_000, messages=HELLO, stream=True, **GREEDY)
    next(iter(stream))
    stream.close()
    sys.stdout.write(f"anthropic {anthropic.__version__}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
