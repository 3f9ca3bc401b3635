"""What the clients' pages tell people to set is there, and is what was run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import services
from services.gateway.settings import DEFAULT_PORT, GatewaySettings

PAGES = Path(services.__file__).parent / "gateway" / "description" / "clients"
SCRIPTS = Path(services.__file__).parents[1] / "loadtest" / "peers" / "stock" / "scripts"
SCRIPT_OF = {
    "ollama": "ollama_command.py",
    "ollama-python": "ollama_python.py",
    "ollama-js": "ollama_js.mjs",
    "open-webui": "open_webui_server.py",
    "openai-python": "openai_python.py",
    "anthropic": "anthropic_python.py",
    "langchain": "langchain_python.py",
    "llama-index": "llama_index_python.py",
    "lm-evaluation-harness": "lm_evaluation.py",
    "aider": "aider_command.py",
    "continue": "continue_cli.py",
}
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
SET = re.compile(r"[{(, ](\w+)[=:](?=[^/=])|export (\w+)=|--([\w-]+) ")
OF_THE_PAGE = {"model_args", "tasks", "messages", "content", "role", "name", "models"}
"""What a page has of its own accord, and a script in another form."""


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((PAGES / f"{page}.md").read_text())


def test_each_client_has_a_page_whose_settings_its_script_uses() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {"index", *SCRIPT_OF}
    for page, script in SCRIPT_OF.items():
        used = (SCRIPTS / script).read_text()
        code = [text for kind, text in blocks(page) if kind != "toml"]
        named = {next(filter(None, found)) for text in code for found in SET.findall(text)} - OF_THE_PAGE
        assert named, page
        assert not {name for name in named if name not in used}, page
        assert all(f"127.0.0.1:{DEFAULT_PORT}" in text for text in code if "11435" in text), page
        assert any(f"127.0.0.1:{DEFAULT_PORT}" in text for text in code), page


def test_what_pages_say_of_choir_toml_can_stand_in_it() -> None:
    said = [text for page in SCRIPT_OF for kind, text in blocks(page) if kind == "toml"]
    assert len(said) > 1
    for text in said:
        GatewaySettings.model_validate(tomllib.loads(text))


def test_what_pages_show_in_python_is_python() -> None:
    for page in SCRIPT_OF:
        for kind, text in blocks(page):
            if kind == "python":
                compile(text, page, "exec")
