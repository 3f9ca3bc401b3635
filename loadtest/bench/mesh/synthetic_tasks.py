"""A database of millions of tasks, made by DuckDB itself: what a busy mesh would have after a while.

Every request has four tasks; topologies, models, instances and hosts take turns, durations are drawn
log-uniformly by a hash of the row's number, and one task in a hundred failed.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from services.metrics.store.database import migrate

ROWS_AT_ONCE = 1_000_000
TASKS_OF_A_REQUEST = 4
BUILD_MEMORY = "2GB"

ENVELOPE = """0 AS stream_epoch, i + 1 AS sequence, '{service}' AS service,
    TIMESTAMP '2026-11-01' + to_microseconds(i * {gap_us}) AS stored_at,
    TIMESTAMP '2026-11-01' + to_microseconds(i * {gap_us}) AS "at",
    '{letter}' || lpad(i::VARCHAR, 20, '0') AS event_id,
    '01JZ0CH0RA8W2M6Q' || lpad((i // {tasks})::VARCHAR, 10, '0') AS request_id,
    md5((i // {tasks})::VARCHAR) AS trace_id"""
TASK = """'01JZ0CH0RA8W2M6Q' || lpad((i // 4)::VARCHAR, 10, '0') || '.1.model-' || (i % 4) AS task_id,
    'agent-' || (i % 8) AS instance, 'host-' || (i % 4) AS host, 'model-' || (i % 4) AS model,
    (hash(i + 2) % 50000000)::BIGINT AS queue_duration_ns, 1 AS round, 1 AS delivery"""
TOPOLOGY = "['single', 'ensemble', 'chain'][1 + (i // {tasks}) % 3] AS topology"
DURATION = "(1e6 * exp(3 + 2 * ((hash(i + 3) % 1000000) / 1e6)))::BIGINT"

TABLES = {
    "task_completed": f"""{TASK}, {DURATION} AS timings_total_duration_ns,
        left(md5(i::VARCHAR), 16) AS span_id, 'stop' AS finish_reason,
        20 + hash(i) % 200 AS prompt_tokens, 1 + hash(i + 1) % 100 AS generated_tokens,
        (hash(i + 4) % 20000000)::BIGINT AS timings_prompt_eval_duration_ns,
        (hash(i + 5) % 200000000)::BIGINT AS timings_eval_duration_ns,
        (hash(i + 6) % 30000000)::BIGINT AS timings_first_token_ns,
        0 AS timings_load_duration_ns, (hash(i + 7) % 1000000)::BIGINT AS slot_duration_ns,
        CASE WHEN hash(i + 8) % 100 = 0 THEN 'generation_failed' END AS error_code,
        10 + (hash(i + 9) % 1000) / 10.0 AS tokens_per_s, 200000 AS store_duration_ns""",
    "task_pulled": f"{TASK}, hash(i + 10) % 30 AS waiting",
    "request_accepted": """'router-1' AS instance, 'host-0' AS host, 100 AS prompt_bytes,
        ['model-0', 'model-1', 'model-2', 'model-3'] AS models, ['majority'] AS strategies""",
    "request_completed": f"""'aggregator-1' AS instance, 'host-0' AS host, 4 AS answered,
        {DURATION} AS total_duration_ns, 400 AS prompt_tokens, 100 AS generated_tokens,
        CASE WHEN hash(i + 11) % 200 = 0 THEN 'deadline_exceeded' END AS error_code""",
    "decision_made": """'aggregator-1' AS instance, 'host-0' AS host, 'majority' AS strategy, 4 AS agents,
        0 AS abstained, 0 AS missing, 0.25 + (hash(i + 12) % 4) / 4.0 AS share, 0.5 AS margin,
        false AS tie""",
}
WITH_TOPOLOGY = ("task_completed", "request_accepted", "request_completed")


def fill_database(path: Path, tasks: int) -> None:
    """Makes a database at `path` with so many tasks taken and completed, and the requests they are of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(path), config={"memory_limit": BUILD_MEMORY}) as connection:
        migrate(connection)
        for table, columns in TABLES.items():
            per_request = TASKS_OF_A_REQUEST if table.startswith("task") else 1
            count = tasks * per_request // TASKS_OF_A_REQUEST
            for first in range(0, count, ROWS_AT_ONCE):
                rows = f"range({first}, {min(first + ROWS_AT_ONCE, count)}) AS t(i)"
                connection.execute(
                    f"INSERT INTO {table} BY NAME SELECT {_select(table, columns, per_request)} FROM {rows}"
                )
        connection.execute("CHECKPOINT")


def _select(table: str, columns: str, per_request: int) -> str:
    envelope = ENVELOPE.format(
        service=table.split("_")[0],
        letter=table[0].upper() + table[-2].upper(),
        gap_us=100_000 * TASKS_OF_A_REQUEST // per_request,
        tasks=per_request,
    )
    topology = f", {TOPOLOGY.format(tasks=per_request)}" if table in WITH_TOPOLOGY else ""
    return f"{envelope}, {columns}{topology}"
