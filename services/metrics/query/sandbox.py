"""Checks a user's statement: one SELECT that reads tables and views, and computes.

The database itself is locked as well (no files, no network, no settings) and the transaction is read-only;
this check comes first, and says what is wrong with a statement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from schemas.errors import QueryFailed, QueryRefused

TABLE_FUNCTIONS = frozenset(
    {
        "range",
        "generate_series",
        "unnest",
        "json_each",
        "json_tree",
        "repeat_row",
        "summary",
        "duckdb_tables",
        "duckdb_views",
        "duckdb_columns",
        "duckdb_functions",
        "duckdb_types",
        "duckdb_keywords",
        "pragma_table_info",
        "pragma_version",
        "pragma_database_size",
    }
)
"""Every table function that a statement may use: none of them reads a file or changes anything."""

FILE_MARKS = ("/", "\\", ".parquet", ".csv", ".json", ".duckdb", ":")
"""A table whose name has one of these would be a file."""

SCHEMAS = frozenset({"", "main", "events", "information_schema", "pg_catalog"})
"""Schemas of tables; DuckDB would open `"a folder/x".parquet`, a table of another schema, as a file."""

CLOSED_FUNCTIONS = frozenset(
    {
        "levenshtein",
        "editdist3",
        "damerau_levenshtein",
        "current_setting",
        "getenv",
        "write_log",
    }
)
"""Functions that cannot be interrupted, and take the square of what they are given; or that tell of the host
and write into its log."""

FIELD = "statement"


def check(statement: str, cursor: DuckDBPyConnection) -> None:
    """Raises QueryRefused for anything but one reading statement, QueryFailed for what cannot be parsed."""
    try:
        statements = cursor.extract_statements(statement)
        kinds = [found.type for found in statements]
    except ValueError as error:  # a statement that DuckDB's Python package has no name for
        raise QueryRefused(f"{FIELD}: only SELECT is answered here", field=FIELD) from error
    except duckdb.Error as error:
        raise failed(error) from error
    if len(kinds) != 1:
        raise QueryRefused(f"{FIELD}: one statement at a time, these are {len(kinds)}", field=FIELD)
    if kinds[0] is not duckdb.StatementType.SELECT:
        raise QueryRefused(f"{FIELD}: only SELECT is answered here, this is {kinds[0].name}", field=FIELD)
    _check_parts(statement, cursor)


def tables_in(statement: str, cursor: DuckDBPyConnection) -> set[str]:
    """The names in lower case of all tables and views that a checked statement reads."""
    return {
        str(node.get("table_name", "")).lower()
        for node in _nodes(_parsed(statement, cursor))
        if node.get("type") == "BASE_TABLE"
    }


def _check_parts(statement: str, cursor: DuckDBPyConnection) -> None:
    tree = _parsed(statement, cursor)
    if tree.get("error"):
        raise QueryRefused(f"{FIELD}: {tree.get('error_message', 'not a plain SELECT')}", field=FIELD)
    for node in _nodes(tree):
        _check_node(node)


def _parsed(statement: str, cursor: DuckDBPyConnection) -> dict[str, Any]:
    serialized = cursor.execute("SELECT json_serialize_sql(?::VARCHAR)", [statement]).fetchall()
    tree: dict[str, Any] = json.loads(serialized[0][0])
    return tree


def _check_node(node: dict[str, Any]) -> None:
    match node.get("type"):
        case "TABLE_FUNCTION":
            name = str((node.get("function") or {}).get("function_name", "")).lower()
            if name not in TABLE_FUNCTIONS:
                raise QueryRefused(f"{FIELD}: the table function {name} is not open here", field=FIELD)
        case "FUNCTION":
            name = str(node.get("function_name", "")).lower()
            if name in CLOSED_FUNCTIONS:
                raise QueryRefused(f"{FIELD}: the function {name} is not open here", field=FIELD)
        case "BASE_TABLE":
            name = str(node.get("table_name", ""))
            schema = str(node.get("schema_name") or "")
            if schema.lower() not in SCHEMAS:
                raise QueryRefused(f"{FIELD}: there is no schema {schema[:80]} here", field=FIELD)
            if any(mark in name for mark in FILE_MARKS):
                raise QueryRefused(f"{FIELD}: {name} is a file, and files are not open here", field=FIELD)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document, without recursion: a statement may be nested deeply."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def failed(error: duckdb.Error) -> QueryFailed:
    """An error of DuckDB as ours: its whole message, without a stack."""
    said = str(error).split("\n\nStack Trace")[0].strip()
    return QueryFailed(f"{FIELD}: {said}", field=FIELD)
