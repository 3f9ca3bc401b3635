-- question: How long do requests take from acceptance to their stored result, by how they travel?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   topology          single, ensemble or chain
--   requests          how many were answered; failed how many ended in an error
--   p50_ms ... p99_ms percentiles of those answered; across clocks if router and the last service are two hosts
WITH grouped AS (
    SELECT
        topology,
        count(*) FILTER (WHERE error_code IS NULL) AS requests,
        count(error_code) AS failed,
        quantile_cont(total_duration_ns, [0.50, 0.95, 0.99]) FILTER (WHERE error_code IS NULL) AS total_ns
    FROM completed_requests
    WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
    GROUP BY topology
)
SELECT
    topology,
    requests,
    failed,
    total_ns[1] / 1e6 AS p50_ms,
    total_ns[2] / 1e6 AS p95_ms,
    total_ns[3] / 1e6 AS p99_ms
FROM grouped
ORDER BY topology;
