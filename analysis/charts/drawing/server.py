"""`python -m analysis.charts.drawing.server`: draws for another process. JSON lines in, JSON lines out.

`{"chart": NAME, "rows": [...]}` is answered with `{"spec": ...}`: a chart of the mesh's events, or `columns`
for rows of any kind. With `query` in the place of `chart` it is the one that is drawn from that query's rows.
`{"bundle": true}` is answered with `{"script": ...}`, the JavaScript that draws them.
What cannot be drawn is answered with `{"problem": ...}`. It ends when its input does.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from analysis.charts.drawing.columns import columns
from analysis.charts.drawing.render import javascript, specification
from analysis.charts.mesh import MESH_CHARTS

CHARTS = {**{name: chart.draw for name, chart in MESH_CHARTS.items()}, "columns": columns}

BY_QUERY = {chart.query: name for name, chart in reversed(MESH_CHARTS.items())}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to one question."""
    try:
        if question.get("bundle"):
            return {"script": javascript()}
        name = question["chart"] if "chart" in question else BY_QUERY.get(question["query"], "columns")
        return {"spec": specification(CHARTS[name](question["rows"]))}
    except Exception as error:  # noqa: BLE001  (whoever asked is told, and may ask for another chart)
        return {"problem": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answers until nobody asks any more."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line)), ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
