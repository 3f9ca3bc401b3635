-- question: Which requests and which tasks have ended, each of them once?
-- columns:
--   as request_completed has them, and task_completed
-- Whoever finds an outcome stored tells of it again, as whoever stored it may have died before that. The broker keeps
-- the first of two such events for some minutes only; they have one event_id, and the second has no store_duration_ns.
CREATE OR REPLACE VIEW completed_requests AS
SELECT * FROM request_completed
WHERE (stream_epoch, sequence) NOT IN (
    SELECT (stream_epoch, sequence) FROM request_completed
    WHERE event_id IN (SELECT event_id FROM request_completed WHERE store_duration_ns = 0)
    QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY store_duration_ns = 0, stream_epoch, sequence) > 1
);
CREATE OR REPLACE VIEW completed_tasks AS
SELECT * FROM task_completed
WHERE (stream_epoch, sequence) NOT IN (
    SELECT (stream_epoch, sequence) FROM task_completed
    WHERE event_id IN (SELECT event_id FROM task_completed WHERE store_duration_ns = 0)
    QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY store_duration_ns = 0, stream_epoch, sequence) > 1
);
