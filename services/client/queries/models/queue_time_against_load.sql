-- question: How does the time in the queue grow with the load?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   model             whose queue
--   waiting_from      the load: how many more commands the broker had for the model when a task was taken,
--   waiting_to        in powers of two
--   tasks             how many tasks were taken then
--   p50_ms ... max_ms how long they had been in the queue, by the broker's clock and the agent's
WITH grouped AS (
    SELECT
        model,
        CASE WHEN waiting > 0 THEN floor(log2(waiting)) + 1 ELSE 0 END AS magnitude,
        min(waiting) AS waiting_from,
        max(waiting) AS waiting_to,
        count(*) AS tasks,
        -- Single precision: all of a group's values are in memory at once, and a microsecond of them is enough.
        quantile_cont((queue_duration_ns / 1e6)::FLOAT, [0.50, 0.95]) AS queue_ms,
        max(queue_duration_ns) AS longest_ns
    FROM task_pulled
    WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
    GROUP BY model, magnitude
)
SELECT
    model,
    waiting_from,
    waiting_to,
    tasks,
    round(queue_ms[1]::DOUBLE, 3) AS p50_ms,
    round(queue_ms[2]::DOUBLE, 3) AS p95_ms,
    longest_ns / 1e6 AS max_ms
FROM grouped
ORDER BY model, waiting_from;
