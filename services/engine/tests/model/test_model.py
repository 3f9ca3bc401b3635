from __future__ import annotations

import threading
import time
from pathlib import Path

import gguf
import pytest

from infra.demo_models.bench_model import vocabulary
from infra.testing.made_models.variants import demo_model
from schemas.errors import GenerationFailed, InvalidRequest, ModelUnusable
from services.engine.model.model import Model


def test_a_text_survives_tokens_and_back(model: Model) -> None:
    text = "the café on the hill\n"
    assert model.text_of(model.tokenize(text).tolist()) == text


def test_control_tokens_are_recognised_and_stand_for_no_text(model: Model) -> None:
    tokens = model.tokenize("<|im_end|>").tolist()
    assert tokens == [vocabulary().index("<|im_end|>")]
    assert model.ends_generation(tokens[0])
    assert model.piece(tokens[0]) == b""


def test_a_model_is_freed_when_nobody_reads_its_vocabulary_any_more() -> None:
    model = Model(demo_model("llama"))
    closing = threading.Thread(target=model.close)
    with model.reading():
        closing.start()
        while not model._closed:
            time.sleep(0.001)
        assert model.handle is not None and len(model.tokenize("the giraffe"))
    closing.join()
    assert model.handle is None
    with pytest.raises(GenerationFailed, match=r"the model choir-llama\.gguf is closed"), model.reading():
        pytest.fail("it is read")


def test_a_lone_surrogate_is_an_invalid_prompt(model: Model) -> None:
    with pytest.raises(InvalidRequest) as caught:
        model.tokenize("\ud800")
    assert caught.value.field == "prompt"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"nowhere\.gguf cannot be read: No such file"):
        Model(tmp_path / "nowhere.gguf")


def test_an_architecture_that_llama_cpp_does_not_know_is_unusable(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_header_only(path, "nosuch")
    with pytest.raises(ModelUnusable, match=r"cannot load the model file .*odd\.gguf: .*nosuch"):
        Model(path)


def write_header_only(path: Path, architecture: str) -> None:
    """A well-formed file of one small tensor."""
    import numpy as np

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_context_length(32)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
