-- question: What had to be done more than once, and why?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   what              redelivered (a task was taken again), retried (given back to the queue) or died
--   service           who took it, gave it back or gave it up
--   model             whose tasks, where it is known
--   code              the error, where there is one
--   times             how often
--   requests          of how many requests
SELECT 'redelivered' AS what, service, model, NULL AS code, count(*) AS times, count(DISTINCT request_id) AS requests
FROM task_pulled WHERE delivery > 1 AND "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
GROUP BY service, model
UNION ALL
SELECT 'retried', service, NULL, error_code, count(*), count(DISTINCT request_id)
FROM task_retried WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
GROUP BY service, error_code
UNION ALL
SELECT 'died', service, NULL, error_code, count(*), count(DISTINCT request_id)
FROM message_died WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
GROUP BY service, error_code
ORDER BY what, service, model, code;
