"""Checks that a model file is the one that was published: SHA-256 sums in `SHA256SUMS`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from infra.demo_models.family import FAMILY, FOLDER
from schemas.errors import ModelUnusable, UnknownModel

SUMS_FILE = "SHA256SUMS"


def model_path(name: str) -> Path:
    """Where the model of this name lies; UnknownModel says which there are."""
    if name not in FAMILY:
        known = ", ".join(FAMILY)
        raise UnknownModel(f"there is no demo model {name!r}; there are {known}", known=tuple(FAMILY))
    return FOLDER / f"{name}.gguf"


def verify(path: Path) -> None:
    """Raise ModelUnusable, naming the file, unless it has the sum that its folder's list gives."""
    sums = read(path.parent)
    if path.name not in sums:
        raise ModelUnusable(f"{path} has no checksum in {path.parent / SUMS_FILE}")
    if not path.is_file():
        raise ModelUnusable(f"{path} is missing; fetch it again or train it anew")
    found = sha256_of(path)
    if found != sums[path.name]:
        raise ModelUnusable(
            f"{path} is damaged: its SHA-256 is {found}, it should be {sums[path.name]}; fetch the file again"
        )


def read(folder: Path) -> dict[str, str]:
    """The sums in a folder's list, by file name; ModelUnusable if there is no readable list."""
    path = folder / SUMS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ModelUnusable(f"the checksum list {path} cannot be read: {error.strerror}") from error
    sums = {}
    for line in lines:
        match line.split():
            case [digest_in_hex, name]:
                sums[name.removeprefix("*")] = digest_in_hex
            case []:
                continue
            case _:
                raise ModelUnusable(f"the checksum list {path} has a line that is not 'sum  name': {line!r}")
    return sums


def record(folder: Path) -> None:
    """Write the list for every model file of a folder."""
    files = sorted(folder.glob("*.gguf"))
    text = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
    (folder / SUMS_FILE).write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
