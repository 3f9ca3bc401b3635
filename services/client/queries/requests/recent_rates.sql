-- question: How busy is the mesh now, and how fast does it answer?
-- parameters: since_s (DOUBLE = 0)
-- columns, of what happened after since_s (seconds since the epoch):
--   requests    results that were stored
--   failed      those of them that are errors; refused counts requests turned away at the door
--   tokens      generated tokens of tasks that were completed
--   p50_ms      median and 95th percentile of what clients waited for a result on choir.ask
--   p95_ms
WITH since AS (SELECT make_timestamp(($since_s * 1e6)::BIGINT) AS moment)
SELECT
    (SELECT count(*) FROM completed_requests, since WHERE "at" > moment) AS requests,
    (SELECT count(*) FROM completed_requests, since WHERE "at" > moment AND error_code IS NOT NULL) AS failed,
    (SELECT count(*) FROM request_refused, since WHERE "at" > moment) AS refused,
    (SELECT coalesce(sum(generated_tokens), 0)::BIGINT FROM completed_tasks, since WHERE "at" > moment) AS tokens,
    (SELECT quantile_cont(total_duration_ns / 1e6, 0.5) FROM request_replied, since
     WHERE "at" > moment AND endpoint = 'ask') AS p50_ms,
    (SELECT quantile_cont(total_duration_ns / 1e6, 0.95) FROM request_replied, since
     WHERE "at" > moment AND endpoint = 'ask') AS p95_ms;
