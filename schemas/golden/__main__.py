"""Compares the golden files with the samples, or writes them.

uv run python -m schemas.golden            names the files that differ; exit 1 if there are any
uv run python -m schemas.golden --write    makes the files what the samples say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from schemas.golden.samples import SAMPLES
from schemas.message import Message

FOLDER = Path(__file__).parent


def render(message: Message) -> str:
    """The wire form of a message, indented for reading."""
    return json.dumps(json.loads(message.to_bytes()), indent=2, ensure_ascii=False) + "\n"


def differences(folder: Path, samples: Mapping[str, Message]) -> list[str]:
    """The names of files in `folder` that are missing, different or without a sample."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    expected = {name: render(message) for name, message in samples.items()}
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def write(folder: Path, samples: Mapping[str, Message]) -> None:
    """Makes the files in `folder` what the samples say; a file without a sample goes."""
    for path in folder.glob("*.json"):
        if path.stem not in samples:
            path.unlink()
    for name, message in samples.items():
        (folder / f"{name}.json").write_text(render(message), encoding="utf-8")


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.golden", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the files")
    arguments = parser.parse_args()
    differing = differences(FOLDER, SAMPLES)
    if arguments.write:
        write(FOLDER, SAMPLES)
    for name in differing:
        sys.stdout.write(f"{'written' if arguments.write else 'differs'}: {name}.json\n")
    return 1 if differing and not arguments.write else 0


if __name__ == "__main__":
    sys.exit(main())
