"""An older version of `schemas`, generated from the golden files.

The first golden file of each kind of message shows the form that it began with; what came later stands in the
further ones, and there alone. So the older version has of each class the fields of that file, and those that
were never optional.

`python -m services.tests.versions.older_schemas FOLDER` writes it: for programs, which import no tests.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from infra.testing.plugin import REPOSITORY
from schemas.tests.golden.__main__ import FOLDER as FOLDER
from schemas.tests.golden.samples import SAMPLES

METACLASS = Path(__file__).with_name("first_form.py")
CLASS = "class Struct(BaseModel):"
AS_OLD = {"result_failed", "answer_failed", "host_cordon"}
"""Further samples of what could be so from the beginning: an error, and a cordon around a host."""


def first_samples() -> dict[str, BaseModel]:
    """The samples of the form that each kind of message began with, by the names of their files."""
    found: dict[str, BaseModel] = {}
    for name, sample in SAMPLES.items():
        if name in AS_OLD or type(sample) not in map(type, found.values()):
            found[name] = sample
    return found


def fields_of_first_form() -> dict[str, set[str]]:
    """Of each class that is in one of these files, the fields that are filled there."""
    kept: dict[str, set[str]] = {}
    for name, sample in first_samples().items():
        for part, document in _parts(sample, json.loads((FOLDER / f"{name}.json").read_bytes())):
            kept.setdefault(type(part).__name__, set()).update(document)
    return kept


def _parts(value: object, document: Any) -> Iterator[tuple[BaseModel, dict[str, Any]]]:
    if isinstance(value, BaseModel):
        yield value, document
        for name in document:
            yield from _parts(getattr(value, name, None), document[name])
    elif isinstance(value, tuple):
        for part, described in zip(value, document, strict=True):
            yield from _parts(part, described)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _parts(part, document[str(name)])


def write_older(folder: Path) -> None:
    """Writes the older version as `schemas` into `folder`."""
    shutil.copytree(
        REPOSITORY / "schemas",
        folder / "schemas",
        ignore=shutil.ignore_patterns("tests", "__pycache__"),
    )
    shutil.copy(METACLASS, folder / "schemas")
    fields = {name: sorted(kept) for name, kept in fields_of_first_form().items()}
    (folder / "schemas" / "first_form.json").write_text(json.dumps(fields))
    message = folder / "schemas" / "message.py"
    text = message.read_text()
    assert text.count(CLASS) == 1
    text = text.replace(CLASS, "class Struct(BaseModel, metaclass=FirstForm):")
    message.write_text(
        text.replace(
            "from schemas.subjects", "from schemas.first_form import FirstForm\nfrom schemas.subjects", 1
        )
    )


def running_from(folder: Path, service: str) -> dict[str, Any]:
    """How a service is started that takes `schemas` from a folder.

    -P: the `schemas` in the working directory is this version's.
    """
    command = [sys.executable, "-P", "-m", f"services.{service}"]
    return {"command": command, "env": {"PYTHONPATH": str(folder)}}


if __name__ == "__main__":
    write_older(Path(sys.argv[1]))
