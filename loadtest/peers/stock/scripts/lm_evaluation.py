"""lm-evaluation-harness: a task of our own, scored through the gateway and by llama.cpp's own server."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("OPENAI_API_KEY", "any")

import lm_eval
from harness import Mesh, get, must_be_limited, must_fail, run
from lm_eval.api.model import LM
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Peru": "Lima",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
}
DEADLINE_S = 60.0
GOES_ON = " and"
ANEW = {"choir-cache": "off"}
"""A kept answer comes at once, and takes no tokens of a key."""
"""lm-eval's own backend for llama.cpp leaves out the last token of a text that a model ends there."""
CHOICE = """
task: capitals
dataset_path: json
dataset_kwargs: {{ data_files: {{ test: {data} }} }}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{{{country}}}} is"
doc_to_target: label
doc_to_choice: choices
metric_list: [{{ metric: acc, aggregation: mean, higher_is_better: true }}]
metadata: {{ version: 1 }}
"""
SAID = """
task: said
dataset_path: json
dataset_kwargs: {{ data_files: {{ test: {data} }} }}
test_split: test
output_type: generate_until
doc_to_text: "The capital of {{{{country}}}} is"
doc_to_target: city
generation_kwargs: {{ until: ["."], max_gen_toks: 12 }}
metric_list: [{{ metric: exact_match, aggregation: mean, higher_is_better: true }}]
metadata: {{ version: 1 }}
"""


def evaluated(model: str | LM, arguments: dict[str, Any], task: str = "capitals") -> dict[str, Any]:
    """What lm-eval finds: its results and, for each question, what was said or how likely each choice is."""
    cities = list(CAPITALS.values())
    choices = [city + GOES_ON for city in cities]
    rows = [
        {"country": country, "city": city, "choices": choices, "label": cities.index(city)}
        for country, city in CAPITALS.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "capitals.json"
        data.write_text("\n".join(map(json.dumps, rows)))
        for name, text in (("capitals", CHOICE), ("said", SAID)):
            (Path(folder) / f"{name}.yaml").write_text(text.format(data=data))
        return lm_eval.simple_evaluate(
            model=model,
            model_args=arguments or None,
            tasks=[task],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            bootstrap_iters=0,
            log_samples=True,
        )


def ours(mesh: Mesh, model: str | None = None, **more: Any) -> dict[str, Any]:
    name = model or mesh.model
    return {
        "model": name,
        "base_url": f"{mesh.address}/models/{name}/v1/completions",
        "tokenizer_backend": "remote",
        "max_length": 256,
        **more,
    }


def scores(found: dict[str, Any]) -> list[tuple[float, bool]]:
    rows = sorted(found["samples"]["capitals"], key=lambda row: row["doc_id"])
    return [(float(one[0]), bool(one[1])) for row in rows for one in row["filtered_resps"]]


def plain(mesh: Mesh) -> str:
    found = evaluated("local-completions", ours(mesh), "said")
    assert all(row["filtered_resps"][0] for row in found["samples"]["said"])
    return str(found["results"]["said"])[:80]


def scored(mesh: Mesh) -> str:
    """Equal scores: token ids one at a time, in batches, as text; and by the backend for llama.cpp's own
    server, of that server and of the gateway, on a model whose texts begin with a token of their own."""
    first = evaluated("local-completions", ours(mesh))
    many = evaluated("local-completions", ours(mesh, batch_size=8, num_concurrent=4))
    text = evaluated("local-completions", ours(mesh, tokenized_requests=False))
    for other in (many, text):
        pairs = zip(scores(first), scores(other), strict=True)
        assert all(abs(a[0] - b[0]) < 2e-2 and a[1] == b[1] for a, b in pairs)
    mine = evaluated("gguf", {"base_url": f"{mesh.address}/models/begun"})
    theirs = evaluated("gguf", {"base_url": mesh.reference})
    off = [abs(a[0] - b[0]) for a, b in zip(scores(mine), scores(theirs), strict=True)]
    assert max(off) < 2e-2, (max(off), scores(mine)[:6], scores(theirs)[:6])
    accuracy = [found["results"]["capitals"]["acc,none"] for found in (mine, theirs)]
    assert accuracy[0] == accuracy[1], accuracy
    return f"acc {accuracy[0]:.3f} both, {len(off)} scores at most {max(off):.1e} apart"


def scored_alike(mesh: Mesh) -> str:
    """`local-completions` finds the same before the gateway as before llama.cpp's own server for OpenAI's
    clients, and as lm-eval's backend for llama.cpp.

    That server takes texts alone, and tells no tokens: how many a question has is asked of the gateway.
    """
    arguments = ours(mesh, "begun", tokenized_requests=False)
    theirs = get_model("local-completions").create_from_arg_obj(arguments)
    theirs.base_url = f"{mesh.reference}/v1/completions"
    found = {
        "gateway": evaluated("local-completions", arguments),
        "llama.cpp": evaluated(theirs, {}),
        "gguf": evaluated("gguf", {"base_url": mesh.reference}),
    }
    first, off = scores(found["gateway"]), 0.0
    for name in ("llama.cpp", "gguf"):
        others = scores(found[name])
        off = max(off, *(abs(a[0] - b[0]) for a, b in zip(first, others, strict=True)))
        assert off < 2e-2, (name, off, first[:6], others[:6])
    assert [one[1] for one in first] == [one[1] for one in scores(found["llama.cpp"])]
    accuracy = {name: one["results"]["capitals"]["acc,none"] for name, one in found.items()}
    assert len(set(accuracy.values())) == 1, accuracy
    return f"acc {accuracy['gateway']:.3f} thrice, {len(first)} scores at most {off:.1e} apart"


def unknown(mesh: Mesh) -> str:
    return must_fail(lambda: evaluated("local-completions", ours(mesh, "nobody")), "nobody")


def scored_so_far(mesh: Mesh) -> float:
    """How many prompts the gateway has scored; the harness has tokens counted before."""
    lines = get(f"{mesh.address}/metrics").splitlines()
    return sum(float(line.split(" ")[1]) for line in lines if line.startswith("choir_gateway_cache_total{"))


def kill_in_the_middle(mesh: Mesh, before: float, killed: list[str]) -> None:
    """Kills the gateway once it scores."""
    end_s = time.monotonic() + DEADLINE_S
    while scored_so_far(mesh) < before + 3 and time.monotonic() < end_s:
        time.sleep(0.01)
    mesh.restart()
    killed.append("the gateway")


def restart(mesh: Mesh) -> str:
    before = scores(evaluated("local-completions", ours(mesh)))
    killed: list[str] = []
    killer = threading.Thread(target=kill_in_the_middle, args=(mesh, scored_so_far(mesh), killed))
    killer.start()
    try:
        after = scores(evaluated("local-completions", ours(mesh, num_concurrent=1, max_retries=60)))
    finally:
        killer.join()
    assert killed and before == after, (killed, before, after)
    return "the same scores"


def said_slowly(mesh: Mesh) -> dict[str, Any]:
    return evaluated(
        "local-completions",
        ours(mesh, "slow", tokenizer_backend="none", tokenized_requests=False, eos_string=".", header=ANEW),
        "said",
    )


def hang_up(mesh: Mesh) -> None:
    """The harness is killed while a text is generated for it."""
    mesh.rests()
    with mesh.left():
        going = multiprocessing.get_context("fork").Process(target=said_slowly, args=(mesh,))
        going.start()
        end_s = time.monotonic() + DEADLINE_S
        while mesh.figure("choir_busy") == 0:
            assert time.monotonic() < end_s and going.is_alive(), "it asked nothing"
            time.sleep(0.05)
        going.kill()
        going.join()


def limited(mesh: Mesh) -> str:
    told = {"header": {"Authorization": f"Bearer {mesh.limited_key}", **ANEW}, "max_retries": 1}
    return str(must_be_limited(lambda: evaluated("local-completions", ours(mesh, **told), "said"), "429"))[
        :160
    ]


MISSING = {
    "stream": "the harness streams nothing",
    "tools": "the harness calls no tools",
    "schema": "the harness asks for no forms",
    "embeddings": "the harness asks for no vectors",
    "oversize": "the harness cuts prompts to max_length by itself",
}
run(
    "lm-eval",
    version("lm-eval"),
    plain,
    unknown,
    hang_up,
    limited,
    restart,
    scored,
    scored_alike,
    missing=MISSING,
)
