"""A choir.toml for what was found: one agent for each server, or the demo models if there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from infra.demo_models.family import FAMILY
from services.cli.setup.probe import Found

HEAD = """\
# One host's part of a mesh: `choir up` runs it, `choir validate` checks it. All settings with their
# meaning are in infra/choir.toml and infra/README.md of Choir.
"""
DEMO_NAME = "demo"


def proposal(found: Sequence[Found], files: Sequence[Path] = ()) -> str:
    """The text of a choir.toml with the models of these servers and files."""
    usable = [one for one in found if one.models]
    sections = [_server(one, number) for number, one in enumerate(usable, 1)]
    if files:
        sections.append(_files(files))
    return "\n".join([HEAD, *(sections or [_demo()])])


def _server(found: Found, number: int) -> str:
    backend = "ollama" if found.kind == "ollama" else "openai"
    server = f"{{ type = {_text(found.kind)}, url = {_text(found.url)} }}"
    models = "".join(
        f"  {{ name = {_text(name)}, slots = 1, server = {server} }},\n" for name in found.models
    )
    return (
        f"# {found.kind} at {found.url}; slots: how many requests it takes at once\n"
        f"[[agents]]\nname = {_text(f'{found.kind}-{number}')}\nbackend = {_text(backend)}\n"
        f"models = [\n{models}]\n"
    )


def _files(files: Sequence[Path]) -> str:
    models = "".join(
        f"  {{ name = {_text(_name_of(file))}, path = {_text(str(file))} }},\n" for file in files
    )
    head = '# model files, run by llama.cpp in the agent itself\n[[agents]]\nname = "files"'
    return f"{head}\nmodels = [\n{models}]\n"


def _demo() -> str:
    models = "".join(f"  {{ name = {_text(name)}, path = {_text(f'demo:{name}')} }},\n" for name in FAMILY)
    return (
        "# No server of models was found: these are the small models that come with Choir.\n"
        f"[[agents]]\nname = {_text(DEMO_NAME)}\nmodels = [\n{models}]\n"
    )


def _name_of(file: Path) -> str:
    """A file's name as a model's: without its ending, and without spaces."""
    return "-".join(file.stem.split())


def _text(value: str) -> str:
    """A TOML string: JSON's are among them."""
    return json.dumps(value, ensure_ascii=False)
