-- question: What became of each request that was accepted, or answered by the result of an equal one?
-- columns:
--   accepted_at      when its command was stored (UTC); completed_at when its result was, null while it is open
--   status           open, answered or failed
--   total_ms         from acceptance to the stored result; across clocks if these are two hosts
--   waited_ms        how long the first client that got the result had waited for it at the router
--   completed_by     the service that stored the result
--   cached_from      the request whose result it was answered by, null for one that was worked on; then accepted_at is
--                    when it came, completed_at when it was answered, and no token was generated for it
CREATE OR REPLACE VIEW requests AS
SELECT
    a.at AS accepted_at,
    c.at AS completed_at,
    a.request_id,
    a.trace_id,
    a.topology,
    a.priority,
    a.models,
    a.strategies,
    CASE
        WHEN c.request_id IS NULL THEN 'open'
        WHEN c.error_code IS NULL THEN 'answered'
        ELSE 'failed'
    END AS status,
    c.total_duration_ns / 1e6 AS total_ms,
    r.waited_ns / 1e6 AS waited_ms,
    a.admit_duration_ns / 1e6 AS admit_ms,
    c.store_duration_ns / 1e6 AS store_ms,
    a.prompt_bytes,
    c.answered,
    c.prompt_tokens,
    c.generated_tokens,
    c.service AS completed_by,
    c.error_code,
    c.error_message,
    NULL AS cached_from
FROM request_accepted AS a
LEFT JOIN completed_requests AS c ON c.request_id = a.request_id
LEFT JOIN (
    SELECT request_id, min(total_duration_ns) AS waited_ns FROM request_replied GROUP BY request_id
) AS r ON r.request_id = a.request_id
UNION ALL
SELECT
    "at" - to_microseconds(total_duration_ns // 1000), "at", request_id, trace_id, topology,
    NULL, models, [], 'answered', total_duration_ns / 1e6, total_duration_ns / 1e6, NULL, NULL,
    NULL, NULL, 0, 0, service, NULL, NULL, cached_from
FROM request_shared;
