"""The SQL page: queries that come with Choir, statements of one's own; rows as a table, a chart, a file."""

from __future__ import annotations

import asyncio

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import ChoirError, InvalidRequest
from services.gateway.dashboard.queries.export import EXPORTS
from services.gateway.dashboard.queries.question import Question, shipped
from services.gateway.dashboard.shell.drawing import Drawing
from services.gateway.dashboard.shell.frame import Frame
from services.gateway.dashboard.shell.pages import SECURITY

MOST_SHOWN = 200
NO_ROWS = "there are no rows"


class QueriesPage:
    """Asks the event database what the address says: every question has a link."""

    def __init__(self, frame: Frame, drawing: Drawing) -> None:
        self._frame = frame
        self._drawing = drawing

    async def page(self, request: Request) -> Response:
        """The questions, and the rows of the one that is asked. What is wrong with it stands beside it."""
        question = Question.of(request.query_params)
        rows, problem = None, None
        if question is not None and question.complete:
            try:
                rows = await question.rows(self._frame.context.mesh, most=MOST_SHOWN)
            except ChoirError as error:
                problem = error.message
        return self._frame.page(
            "queries/page.html.j2",
            "queries",
            shipped=shipped(),
            question=question,
            rows=rows,
            problem=problem,
            exports=tuple(EXPORTS),
        )

    async def chart(self, request: Request) -> Response:
        """The rows as a specification: the chart of `analysis` that is drawn from this query, or columns."""
        question = self._asked(request)
        try:
            rows = (await question.rows(self._frame.context.mesh, most=MOST_SHOWN * 10)).by_name()
            told: dict[str, object] = {"words": NO_ROWS}
            if rows:
                spec = await self._drawing.of_query(question.name, rows)
                told = {"words": question.file.question or "the rows of the statement", "spec": spec}
        except ChoirError as error:
            told = {"words": error.message}
        return Response(to_json(told), 200, SECURITY, "application/json")

    async def export(self, request: Request) -> Response:
        """All rows as a file. A header says if there were more than a message carries."""
        question, ending = self._asked(request), request.path_params["format"]
        if ending not in EXPORTS:
            raise InvalidRequest(f"format: there is none called {ending!r}; known: {', '.join(EXPORTS)}")
        export = EXPORTS[ending]
        rows = await question.rows(self._frame.context.mesh, arrow=export.arrow)
        content = await asyncio.to_thread(export.write, rows)
        headers = {
            **SECURITY,
            "content-disposition": f'attachment; filename="{question.name or "rows"}.{ending}"',
            "choir-rows": str(rows.row_count),
            "choir-truncated": str(rows.truncated).lower(),
        }
        return Response(content, 200, headers, export.media_type)

    def _asked(self, request: Request) -> Question:
        question = Question.of(request.query_params)
        if question is None:
            raise InvalidRequest("sql: a statement, or the name of a query, has to be given", field="sql")
        return question
