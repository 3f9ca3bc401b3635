"""`choir verify`: a kept result is decided again without a mesh, and what was changed is named."""

from __future__ import annotations

import json
from pathlib import Path

from infra.testing.choir_up import QUARTET
from services.cli.tests.conftest import Cli


def test_a_result_that_was_kept_verifies_and_a_changed_one_does_not(
    cli: Cli, offline_cli: Cli, tmp_path: Path
) -> None:
    question = ("ask", "Which city?", "--choices", "London,Lyon", "--models", ",".join(QUARTET))
    told = cli(*question, "--receipt", "--json")
    assert told.code == 0, told.err
    (kept := tmp_path / "kept.json").write_text(told.out, encoding="utf-8")
    whole = offline_cli("verify", str(kept))
    assert (whole.code, whole.err) == (0, "") and ": whole, signed by " in whole.out
    result = json.loads(told.out)
    result["answers"][0]["text"] = "Something else"
    (changed := tmp_path / "changed.jsonl").write_text(f"{json.dumps(result)}\n{json.dumps(result)}\n")
    found = offline_cli("verify", str(changed), "--json")
    (first, second) = json.loads(found.out)["results"]
    assert found.code == 1 and first == second
    assert first["faults"][0] == f"the answer of {result['answers'][0]['agent']} in round 1 was changed"
    (file := tmp_path / "other.gguf").write_bytes(b"no model")
    other = offline_cli("verify", str(kept), "--model", f"{QUARTET[0]}={file}")
    assert other.code == 1 and f"the answer of {QUARTET[0]} in round 1 does not say its file" in other.out
    assert "NAME=FILE" in offline_cli("verify", str(kept), "--model", "x").err
    (nothing := tmp_path / "nothing").write_text("nothing")
    assert offline_cli("verify", str(nothing)).err.startswith("choir: invalid_request: file: ")
