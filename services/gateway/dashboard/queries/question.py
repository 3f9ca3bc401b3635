"""What is asked on the SQL page: a query that comes with Choir, with its parameters, or a statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from schemas.errors import InvalidRequest
from schemas.requests.queries import Rows, Scalar
from services.client.client import Choir
from services.client.queries.query_file import SHIPPED, QueryFile, read

PREFIX = "p."
"""Before the names of parameters in an address."""
MOST_ROWS = 100_000
TIMEOUT_S = 30.0


def shipped() -> dict[str, QueryFile]:
    """The queries that come with Choir, by their names."""
    return {name: read(path) for name, path in SHIPPED.items()}


@dataclass(frozen=True)
class Question:
    """A statement, and what fills its placeholders. `name` is that of the query that comes with Choir."""

    name: str
    file: QueryFile
    given: Mapping[str, str]

    @classmethod
    def of(cls, said: QueryParams) -> Question | None:
        """What an address asks; None where it asks nothing. Raises InvalidRequest for an unknown query."""
        name, statement = said.get("query", ""), said.get("sql", "").strip()
        given = {key.removeprefix(PREFIX): value for key, value in said.items() if key.startswith(PREFIX)}
        if statement:
            return cls("", QueryFile("", (), statement), given)
        if not name:
            return None
        known = shipped()
        if name not in known:
            raise InvalidRequest(
                f"query: there is no query {name!r}; known: {', '.join(known)}", field="query"
            )
        return cls(name, known[name], given)

    @property
    def complete(self) -> bool:
        """Whether every parameter has a value."""
        return all(self.given.get(one.name) or one.default is not None for one in self.file.parameters)

    @property
    def address(self) -> str:
        """The same as the query of an address."""
        asked = {"query": self.name} if self.name else {"sql": self.file.statement}
        return urlencode({**asked, **{f"{PREFIX}{name}": value for name, value in self.given.items()}})

    async def rows(self, mesh: Choir, *, most: int = MOST_ROWS, arrow: bool = False) -> Rows:
        """What the database gives. Raises InvalidRequest, QueryRefused, QueryFailed, DeadlineExceeded."""
        given = {name: value for name, value in self.given.items() if value}
        values: dict[str, Scalar] = {**given}
        if self.file.parameters:
            values = self.file.values(given)
        return await mesh.sql(self.file.statement, values, max_rows=most, timeout_s=TIMEOUT_S, arrow=arrow)
