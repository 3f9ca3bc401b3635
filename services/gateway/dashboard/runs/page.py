"""Runs on disk: their tables and charts, two side by side, and each question of an evaluation."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import QueryFailed
from services.gateway.dashboard.runs.folder import Run, run_named, runs
from services.gateway.dashboard.runs.questions import A_PAGE, SHOWS, Show, questions
from services.gateway.dashboard.shell.frame import Frame
from services.gateway.dashboard.shell.pages import SECURITY

EVALUATION = {
    "benchmark": "benchmark",
    "contestant": "who",
    "group": "kind",
    "n_questions": "questions",
    "accuracy": "accuracy",
    "wilson_low": "95 % from",
    "wilson_high": "to",
    "latency_p50_s": "p50, s",
    "tokens_per_question": "tokens",
    "calls_per_question": "calls",
    "ties": "ties",
}
LOAD_TEST = {
    "workload": "workload",
    "metric": "metric",
    "n": "n",
    "mean": "mean, ms",
    "p50": "p50",
    "p90": "p90",
    "p95": "p95",
    "p99": "p99",
    "max": "max",
}
"""The columns of the tables, and what they are called."""
FIGURES = ("seconds", "requests", "answered", "failed", "lost", "doubled", "rate", "tokens_per_s", "goodput")
FROZEN = {**SECURITY, "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
"""A drawing that was written by a run: nothing in it runs."""


class RunsPage:
    """Shows what evaluations and load tests have left."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def _folder(self) -> Path:
        return self._frame.context.settings.results

    async def page(self, request: Request) -> Response:
        """All runs; with one or two names (`run`, `beside`) these, side by side."""
        names = [name for key in ("run", "beside") if (name := request.query_params.get(key, ""))]
        found = await asyncio.to_thread(runs, self._folder)
        chosen = [self._named(name) for name in names]
        return self._frame.page(
            "runs/page.html.j2", "runs", runs=found, chosen=chosen, columns=_columns, figures=FIGURES,
            folder=self._folder,
        )  # fmt: skip

    async def questions(self, request: Request) -> Response:
        """The questions of an evaluation, those of them that the filter lets through."""
        said = request.query_params
        run = self._named(request.path_params["run"])
        show: Show = next((one for one in SHOWS if one == said.get("show")), "all")
        benchmark = said.get("benchmark", "")[:200]
        skip = int(page) * A_PAGE if (page := said.get("page", "0")).isascii() and page.isdigit() else 0
        seen, problem = None, None
        try:
            seen = await asyncio.to_thread(questions, run.path, show, benchmark, min(skip, 10**9))
        except QueryFailed as error:
            problem = error.message
        return self._frame.page(
            "runs/questions.html.j2",
            "runs",
            run=run,
            seen=seen,
            problem=problem,
            shows=tuple(SHOWS),
            wanted={"show": show, "benchmark": benchmark, "page": skip // A_PAGE},
            a_page=A_PAGE,
        )

    async def chart(self, request: Request) -> Response:
        """A chart of a run, as it was drawn then."""
        run, name = self._named(request.path_params["run"]), request.path_params["chart"]
        if name not in run.charts:
            raise HTTPException(404)
        content = await asyncio.to_thread((run.path / "charts" / name).read_bytes)
        return Response(content, 200, FROZEN, "image/svg+xml")

    def _named(self, name: str) -> Run:
        """A run. Raises HTTPException (404)."""
        found = run_named(self._folder, name)
        if found is None:
            raise HTTPException(404)
        return found


def _columns(run: Run) -> dict[str, str]:
    return EVALUATION if run.kind == "evaluation" else LOAD_TEST
