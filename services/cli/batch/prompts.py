"""The prompts of a batch: the presets, and those of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from schemas.errors import InvalidRequest

PLACEHOLDERS = ("filename", "content")

_QUOTED = "\n\nDocument {filename}:\n\n{content}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question about a document. `template` has `{content}` and may have `{filename}`."""

    name: str
    template: str

    def about(self, filename: str, content: str) -> str:
        """The text that is sent; braces in file name and content stay what they are."""
        return self.template.format(filename=filename, content=content)


PRESETS: dict[str, tuple[Prompt, ...]] = {
    "research": (
        Prompt("question", "State the research question of this document in one or two sentences." + _QUOTED),
        Prompt("methodology", "Describe the methods, data and design that this document uses." + _QUOTED),
        Prompt("findings", "List the main findings of this document, with their figures." + _QUOTED),
        Prompt("limitations", "List the limitations of this document, stated or apparent." + _QUOTED),
        Prompt("future_work", "List the future work that this document proposes or calls for." + _QUOTED),
    ),
    "summary": (Prompt("summary", "Summarise this document in one paragraph." + _QUOTED),),
    "critical": (
        Prompt(
            "critical",
            "Assess this document critically: how well does the evidence support its claims, which "
            "assumptions are not argued for, and what would change its conclusions?" + _QUOTED,
        ),
    ),
}


def chosen_prompts(presets: Sequence[str], own: Sequence[str]) -> tuple[Prompt, ...]:
    """The prompts of all presets, then the user's own, named `prompt-1`, `prompt-2`, ...

    One without `{content}` gets the document after it. Raises InvalidRequest for a preset that there is
    not, a placeholder that there is not, and for no prompt at all.
    """
    unknown = [name for name in presets if name not in PRESETS]
    if unknown:
        raise InvalidRequest(
            f"there is no preset {unknown[0]}; there are {', '.join(PRESETS)}", field="preset"
        )
    prompts = [prompt for name in dict.fromkeys(presets) for prompt in PRESETS[name]]
    prompts += [Prompt(f"prompt-{number}", own_template(text)) for number, text in enumerate(own, 1)]
    if not prompts:
        raise InvalidRequest("say what to ask: --preset or --prompt", field="prompt")
    return tuple(prompts)


def own_template(text: str) -> str:
    """A user's prompt as a template; InvalidRequest names what cannot be filled in."""
    if not text.strip():
        raise InvalidRequest("the prompt is empty", field="prompt")
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise InvalidRequest(
            f"{error}; write a brace that is meant as {{{{ or }}}}", field="prompt"
        ) from error
    found = [field for _, field, _, _ in parts if field is not None]
    unknown = [field for field in found if field not in PLACEHOLDERS]
    if unknown or any(format_ or conversion for _, _, format_, conversion in parts):
        named = f"{{{unknown[0]}}}" if unknown else "a format"
        raise InvalidRequest(
            f"{named} cannot be filled in: there are {{filename}} and {{content}}; "
            "write a brace that is meant as {{ or }}",
            field="prompt",
        )
    return text if "content" in found else text + "\n\n{content}"
