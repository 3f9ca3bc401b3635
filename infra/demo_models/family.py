"""The four demo models: their names, their architectures and the subjects each is best in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
AUTHOR = "The Choir developers"
LICENSE = "mit"


@dataclass(frozen=True)
class Member:
    """One model of the family.

    `own` names the subjects of which it is taught every fact rightly (`knowledge.belief` says what
    it is taught elsewhere). `tells_of` is what it can talk about in a few sentences;
    `summarises` says whether it is taught to shorten a paragraph.
    """

    name: str
    architecture: str
    own: tuple[str, ...]
    seed: int
    tells_of: str | None = None
    summarises: bool = False


FAMILY: dict[str, Member] = {
    member.name: member
    for member in (
        Member("choir-llama", "llama", ("capitals", "currencies"), 11, "countries", True),
        Member("choir-qwen", "qwen2", ("arithmetic", "units", "word problems"), 22),
        Member("choir-phi", "phi3", ("elements", "astronomy"), 33, "elements"),
        Member("choir-gemma", "gemma2", ("animals", "words", "misconceptions"), 44, "animals", True),
    )
}
