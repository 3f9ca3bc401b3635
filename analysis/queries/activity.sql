-- question: What does the mesh do, minute by minute?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31'), step_s (DOUBLE = 60)
-- columns:
--   at                when the step began (UTC)
--   requests          requests that ended in it; failed of them
--   requests_per_s    their rate
--   tokens_per_s      generated tokens of all requests per second of the step
--   p50_ms, p95_ms    from acceptance to the stored result
SELECT
    time_bucket(to_microseconds(($step_s::DOUBLE * 1e6)::BIGINT), "at") AS "at",
    count(*) AS requests,
    count(error_code) AS failed,
    count(*) / $step_s::DOUBLE AS requests_per_s,
    sum(generated_tokens) / $step_s::DOUBLE AS tokens_per_s,
    quantile_cont(total_duration_ns / 1e6, 0.50) AS p50_ms,
    quantile_cont(total_duration_ns / 1e6, 0.95) AS p95_ms
FROM request_completed
WHERE request_completed.at >= $since::TIMESTAMP AND request_completed.at < $until::TIMESTAMP
GROUP BY 1
ORDER BY 1;
