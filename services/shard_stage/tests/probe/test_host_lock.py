"""Instances of one host take turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ModelUnusable
from services.shard_stage.probe.host_lock import host_lock

HOLDER = """
import sys
from pathlib import Path
from services.shard_stage.probe.host_lock import host_lock
with host_lock(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_one_waits_for_the_other_and_not_for_ever(tmp_path: Path) -> None:
    # Given another process whose turn it is
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[4],
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        # Then this one waits, for as long as it has patience
        with host_lock(tmp_path, patience_s=0.1) as mine:
            assert not mine
        # And when the other one dies, it is its turn
        other.kill()
        with host_lock(tmp_path, patience_s=20) as mine:
            assert mine


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelUnusable, match="file"), host_lock(tmp_path / "file" / "slices"):
        pass
