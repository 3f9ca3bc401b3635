"""Ollama's own Python client, as it is, against the gateway."""

from __future__ import annotations

import ollama
import pytest

ASKED = [{"role": "user", "content": "What is the capital of France?"}]


async def test_a_conversation_has_a_reply(client: ollama.AsyncClient) -> None:
    reply = await client.chat("choir-one", ASKED)
    assert (reply["message"]["role"], reply["message"]["content"]) == ("assistant", "Paris")
    assert (reply.done, reply.done_reason, reply.model) == (True, "stop", "choir-one")
    assert reply.total_duration is not None and reply.total_duration > 0
    assert reply.prompt_eval_count is not None and reply.prompt_eval_count > 0
    assert reply.eval_count == 1


async def test_a_stream_is_the_text_in_pieces_and_its_figures_come_last(client: ollama.AsyncClient) -> None:
    parts = [part async for part in await client.chat("choir-four", ASKED, stream=True)]
    texts = [part["message"]["content"] for part in parts]
    assert len(texts) > 2
    assert "".join(texts) == "It is Paris of course"
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == 5
    assert parts[-1].eval_duration is not None


@pytest.mark.parametrize("name", ["choir-one", "choir-one:latest"])
async def test_a_prompt_is_gone_on_with_under_both_names(client: ollama.AsyncClient, name: str) -> None:
    reply = await client.generate(name, "The capital of France is", system="Be brief.")
    assert (reply.response, reply.model) == ("Paris", name)
    parts = [part.response async for part in await client.generate(name, "The capital is", stream=True)]
    assert "".join(part or "" for part in parts) == "Paris"


async def test_the_models_of_the_mesh_are_listed_with_tags(client: ollama.AsyncClient) -> None:
    listed = (await client.list()).models
    names = [model.model for model in listed]
    assert {"choir-one:latest", "choir-four:latest", "choir/majority@four:latest"} <= set(names)
    assert all(model.digest and len(model.digest) >= 12 and model.modified_at for model in listed)
    running = (await client.ps()).models
    assert "choir-one:latest" in [model.model for model in running]
    assert all(model.expires_at and model.expires_at.year > 2100 for model in running)


@pytest.mark.parametrize("name", ["choir-one", "choir/majority"])
async def test_a_model_is_shown(client: ollama.AsyncClient, name: str) -> None:
    shown = await client.show(name)
    assert shown.modelinfo is not None
    lengths = [value for key, value in shown.modelinfo.items() if key.endswith(".context_length")]
    assert len(lengths) == 1 and lengths[0] > 0
    assert shown.capabilities is not None and "completion" in shown.capabilities
    assert shown.template and shown.details is not None


async def test_a_model_that_is_not_there_is_a_404(client: ollama.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as raised:
        await client.chat("nobody", ASKED)
    assert raised.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="not found") as raised:
        async for _ in await client.generate("nobody", "x", stream=True):
            pass
    assert raised.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="not found"):
        await client.show("nobody")


async def test_an_ensemble_answers_as_a_model_does(client: ollama.AsyncClient) -> None:
    reply = await client.chat("choir/majority@four", ASKED)
    assert "Paris" in reply["message"]["content"]
    assert reply.eval_count is not None and reply.eval_count > 4
    parts = [part async for part in await client.chat("choir/majority@four:latest", ASKED, stream=True)]
    assert "Paris" in "".join(part["message"]["content"] for part in parts)
    assert not any(part.message.thinking for part in parts)


async def test_the_members_are_an_ensembles_thoughts_if_they_are_asked_for(
    client: ollama.AsyncClient,
) -> None:
    parts = [part async for part in await client.chat("choir/majority@four", ASKED, stream=True, think=True)]
    thoughts = "".join(part.message.thinking or "" for part in parts)
    assert "choir-three: Lyon" in thoughts and "choir-four: It is Paris of course" in thoughts
    assert "Lyon" not in "".join(part["message"]["content"] for part in parts)


async def test_nothing_asked_loads_a_model_and_zero_unloads_it(client: ollama.AsyncClient) -> None:
    assert (await client.generate("choir-one")).done_reason == "load"
    assert (await client.chat("choir-one")).done_reason == "load"
    assert (await client.generate("choir-one", keep_alive=0)).done_reason == "unload"
    assert [part.done_reason async for part in await client.generate("choir-one", stream=True)] == ["load"]


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(client: ollama.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError, match=r"has \d+ tokens, .* context of 140") as raised:
        await client.chat("choir-short", [{"role": "user", "content": "word " * 200}], stream=False)
    assert raised.value.status_code == 400


async def test_what_would_change_models_is_refused_in_words(client: ollama.AsyncClient) -> None:
    pulled = [part.status async for part in await client.pull("choir-one", stream=True)]
    assert pulled[-1] == "success"
    assert (await client.pull("choir-one")).status == "success"
    for refused in (
        client.pull("llama3.2"),
        client.copy("choir-one", "other"),
        client.delete("choir-one"),
        client.create("other", from_="choir-one"),
    ):
        with pytest.raises(ollama.ResponseError, match=r"choir\.toml") as raised:
            await refused
        assert raised.value.status_code == 501


async def test_an_ensemble_is_copied_under_a_name_that_the_mesh_keeps_and_deleted(
    client: ollama.AsyncClient,
) -> None:
    assert (await client.copy("choir/majority@four", "council")).status == "success"
    try:
        assert "council:latest" in [each.model for each in (await client.list()).models]
        assert (await client.chat("council", [{"role": "user", "content": "Capital?"}])).message.content
        assert (await client.copy("council:latest", "senate")).status == "success"
        assert (await client.delete("senate")).status == "success"
        with pytest.raises(ollama.ResponseError, match="'senate' not found"):
            await client.delete("senate")
    finally:
        await client.delete("council")
    for taken in ("choir-one", "", "two words"):
        with pytest.raises(ollama.ResponseError) as raised:
            await client.copy("choir/majority", taken)
        assert raised.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="nobody deletes it") as built_in:
        await client.delete("choir/majority")
    assert built_in.value.status_code == 501
