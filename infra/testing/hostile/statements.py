"""Statements that take whatever a statement may take: for tests and benchmarks of the event database."""

from __future__ import annotations

ENDLESS = (
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE hash(a.range, b.range) = 1",
    "SELECT sum(hash(range)) FROM range(1000000000000)",
    "FROM tasks a, tasks b, tasks c, tasks d, tasks e, tasks f "
    "SELECT sum(hash(a.task_id, b.task_id, c.task_id, d.task_id, e.task_id, f.task_id))",
)
"""They go on until they are cut off."""
GREEDY = (
    "SELECT list(range) FROM range(1000000000)",
    "SELECT string_agg(repeat('x', 1000), '') FROM range(10000000)",
    "SELECT a.range FROM range(100000000) a ORDER BY hash(a.range)",
)
"""They take memory, and the disk where that is spent."""
