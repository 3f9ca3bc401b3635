-- question: How long does it take until a model says its first token?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   model             whose tasks
--   tasks             how many had a first token
--   p50_ms ... p99_ms from handing the task to the backend to its first token
--   mean_prompt_ms    of it, reading the prompt; mean_queue_ms in the queue, before all that
WITH grouped AS (
    SELECT
        model,
        count(*) AS tasks,
        -- Single precision (seven digits): all of a group's values are in memory at once.
        quantile_cont((timings_first_token_ns / 1e6)::FLOAT, [0.50, 0.95, 0.99]) AS first_token_ms,
        avg(timings_prompt_eval_duration_ns) AS prompt_ns,
        avg(queue_duration_ns) AS queue_ns
    FROM completed_tasks
    WHERE timings_first_token_ns > 0 AND "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
    GROUP BY model
)
SELECT
    model,
    tasks,
    round(first_token_ms[1]::DOUBLE, 3) AS p50_ms,
    round(first_token_ms[2]::DOUBLE, 3) AS p95_ms,
    round(first_token_ms[3]::DOUBLE, 3) AS p99_ms,
    prompt_ns / 1e6 AS mean_prompt_ms,
    queue_ns / 1e6 AS mean_queue_ms
FROM grouped
ORDER BY model;
