-- question: How long do tasks take, by model and by how their request travels?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   model, topology   whose tasks; topology is - where it is not known
--   tasks             how many were answered; failed how many were not
--   p50_ms ... p99_ms percentiles of the time from taking the command to the end of generating, of those answered
--   mean_ms           its mean
WITH grouped AS (
    SELECT
        model,
        coalesce(topology, '-') AS topology,
        count(*) FILTER (WHERE error_code IS NULL) AS tasks,
        count(error_code) AS failed,
        -- All percentiles at once: each call would keep all values for itself. In single precision (seven digits):
        -- all of a group's values are in memory at once.
        quantile_cont((timings_total_duration_ns / 1e6)::FLOAT, [0.50, 0.95, 0.99])
            FILTER (WHERE error_code IS NULL) AS total_ms,
        avg(timings_total_duration_ns) FILTER (WHERE error_code IS NULL) AS mean_ns
    FROM completed_tasks
    WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
    GROUP BY ALL
)
SELECT
    model,
    topology,
    tasks,
    failed,
    round(total_ms[1]::DOUBLE, 3) AS p50_ms,
    round(total_ms[2]::DOUBLE, 3) AS p95_ms,
    round(total_ms[3]::DOUBLE, 3) AS p99_ms,
    mean_ns / 1e6 AS mean_ms
FROM grouped
ORDER BY model, topology;
