"""What an agent can be told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.agent.settings import AgentSection


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        (
            {"name": "a", "backend": "openai", "models": [{"name": "m"}]},
            "model m needs server",
        ),
        (
            {
                "name": "a",
                "backend": "openai",
                "models": [{"name": "m", "server": {"type": "ollama", "url": "http://here:11434"}}],
            },
            "type ollama is not for backend openai",
        ),
        (
            {
                "name": "a",
                "backend": "ollama",
                "models": [{"name": "m", "server": {"type": "ollama", "url": "here:11434/api"}}],
            },
            "url",
        ),
        ({"name": "a", "models": [{"name": "m"}]}, "model m of agent a needs a path"),
        (
            {"name": "a", "backend": "instant", "models": [{"name": "m"}, {"name": "m"}]},
            "names a model twice",
        ),
        ({"name": "a", "backend": "abacus", "models": [{"name": "m"}]}, "backend"),
        ({"name": "a", "backend": "instant", "models": [{"name": "m", "slots": 0}]}, "slots"),
        ({"name": "a", "backend": "instant", "models": [{"name": "two words"}]}, "name"),
        ({"name": "a", "backend": "instant", "models": [{"name": "m", "colour": "red"}]}, "colour"),
    ],
)
def test_what_cannot_be_is_refused_by_name(section: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        AgentSection.model_validate(section)
