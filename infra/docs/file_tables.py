"""The file table in a package's README: a row for each module, with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import ConfigurationError

LEFT_OUT = ("__init__.py", "__main__.py")
SENTENCE_ENDS = re.compile(r"(?<=[.?!])\s+(?=[A-Z`(])")


def files_section(folder: Path) -> str:
    """The table of a package: its modules, then each of its wings, headed by the wing's own sentence.

    A wing with a README of its own is one row that leads there. Tests and `__main__` are left out.
    """
    return "\n".join(["| file | what it holds |", "| --- | --- |", *_rows(folder, folder)])


def first_sentence(module: Path) -> str:
    """The first sentence of a module's docstring, for a table cell. ConfigurationError if it has none."""
    docstring = ast.get_docstring(ast.parse(module.read_text()))
    if not docstring:
        raise ConfigurationError(f"{module} has no docstring: its first sentence stands in the README")
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return SENTENCE_ENDS.split(paragraph, maxsplit=1)[0].removesuffix(".").replace("|", r"\|")


def _rows(folder: Path, package: Path) -> Iterator[str]:
    for module in sorted(folder.glob("*.py")):
        if module.name not in LEFT_OUT:
            yield f"| `{module.relative_to(package)}` | {first_sentence(module)} |"
    for wing in sorted(init.parent for init in folder.glob("*/__init__.py") if init.parent.name != "tests"):
        path, sentence = wing.relative_to(package), first_sentence(wing / "__init__.py")
        if (wing / "README.md").exists():
            yield f"| [**`{path}/`**]({path}/README.md) | {sentence} |"
        else:
            yield f"| **`{path}/`** | **{sentence}** |"
            yield from _rows(wing, package)
