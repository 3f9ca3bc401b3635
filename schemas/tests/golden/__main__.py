"""Compares the golden files with the samples, or writes them.

uv run python -m schemas.tests.golden            names the files that differ; exit 1 if there are any
uv run python -m schemas.tests.golden --write    makes the files what the samples say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from schemas.message import Message
from schemas.pipelines.stage_wire import Item
from schemas.tests.golden.frames import ITEMS
from schemas.tests.golden.samples import SAMPLES

FOLDER = Path(__file__).parent
EVERYTHING: dict[str, Message | Item] = {**SAMPLES, **ITEMS}
SUFFIXES = (".json", ".bin")


def file_name(name: str, sample: Message | Item) -> str:
    """The file of a sample: messages are JSON, what travels between stages is bytes."""
    return f"{name}.json" if isinstance(sample, Message) else f"{name}.bin"


def render(sample: Message | Item) -> bytes:
    """What goes over the wire; a message's is indented for reading."""
    if not isinstance(sample, Message):
        return sample.to_bytes()
    return (json.dumps(json.loads(sample.to_bytes()), indent=2, ensure_ascii=False) + "\n").encode()


def differences(folder: Path, samples: Mapping[str, Message | Item]) -> list[str]:
    """The names of files in `folder` that are missing, different or without a sample."""
    found = {path.name: path.read_bytes() for path in _golden_files(folder)}
    expected = {file_name(name, sample): render(sample) for name, sample in samples.items()}
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def write(folder: Path, samples: Mapping[str, Message | Item]) -> None:
    """Makes the files in `folder` what the samples say; a file without a sample goes."""
    contents = {file_name(name, sample): render(sample) for name, sample in samples.items()}
    for path in _golden_files(folder):
        if path.name not in contents:
            path.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def _golden_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in SUFFIXES]


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.tests.golden", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the files")
    arguments = parser.parse_args()
    differing = differences(FOLDER, EVERYTHING)
    if arguments.write:
        write(FOLDER, EVERYTHING)
    for name in differing:
        sys.stdout.write(f"{'written' if arguments.write else 'differs'}: {name}\n")
    return 1 if differing and not arguments.write else 0


if __name__ == "__main__":
    sys.exit(main())
