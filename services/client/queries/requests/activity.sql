-- question: What does the mesh do, minute by minute?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31'), step_s (DOUBLE = 60)
-- columns:
--   at                when the step began (UTC)
--   requests          requests that ended in it; failed of them
--   requests_per_s    their rate
--   tokens_per_s      generated tokens of all requests per second of the step
--   p50_ms, p95_ms    from acceptance to the stored result
WITH stepped AS (
    SELECT
        time_bucket(to_microseconds(($step_s::DOUBLE * 1e6)::BIGINT), "at") AS begun,
        count(*) AS requests,
        count(error_code) AS failed,
        sum(generated_tokens) AS tokens,
        quantile_cont(total_duration_ns, [0.50, 0.95]) AS total_ns
    FROM completed_requests
    WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
    GROUP BY begun
)
SELECT
    begun AS "at",
    requests,
    failed,
    requests / $step_s::DOUBLE AS requests_per_s,
    tokens / $step_s::DOUBLE AS tokens_per_s,
    total_ns[1] / 1e6 AS p50_ms,
    total_ns[2] / 1e6 AS p95_ms
FROM stepped
ORDER BY begun;
