-- question: What went wrong, and whose was it?
-- columns:
--   kind             the event that tells of it: request_refused, request_completed, request_summarised,
--                    task_completed, task_retried or message_died
--   code, message    the typed error
CREATE OR REPLACE VIEW errors AS
SELECT "at", 'request_refused' AS kind, service, instance, host, request_id, NULL AS task_id, NULL AS model,
    error_code AS code, error_message AS message, error_field AS field, trace_id
FROM request_refused
UNION ALL
SELECT "at", 'request_completed', service, instance, host, request_id, NULL, NULL,
    error_code, error_message, error_field, trace_id
FROM completed_requests WHERE error_code IS NOT NULL
UNION ALL
SELECT "at", 'request_summarised', service, instance, host, request_id, task_id, model,
    error_code, error_message, error_field, trace_id
FROM request_summarised WHERE error_code IS NOT NULL
UNION ALL
SELECT "at", 'task_completed', service, instance, host, request_id, task_id, model,
    error_code, error_message, error_field, trace_id
FROM completed_tasks WHERE error_code IS NOT NULL
UNION ALL
SELECT "at", 'task_retried', service, instance, host, request_id, task_id, NULL,
    error_code, error_message, error_field, trace_id
FROM task_retried
UNION ALL
SELECT "at", 'message_died', service, instance, host, request_id, task_id, NULL,
    error_code, error_message, error_field, trace_id
FROM message_died;
