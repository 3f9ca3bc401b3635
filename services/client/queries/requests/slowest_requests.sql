-- question: Which requests took longest, and what was it that took so long?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31'), count (BIGINT = 20)
-- columns:
--   request_id, topology
--   total_ms          from acceptance to the stored result
--   cause             the longest piece of its slowest task: redelivery, queue, slot, load, prompt, generate or
--                     agent; mesh if most of the time was in no task; no task if none is known
--   cause_ms          how long that piece was
--   model, instance   the slowest task's
--   deliveries        how often that task was delivered
--   error_code        how the request ended, null if it was answered
WITH slow AS (
    SELECT "at", request_id, topology, total_duration_ns, error_code
    FROM completed_requests
    WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
    ORDER BY total_duration_ns DESC, request_id
    LIMIT $count::BIGINT
),
slowest_task AS (
    SELECT
        *,
        timings_total_duration_ns - slot_duration_ns - timings_load_duration_ns
            - timings_prompt_eval_duration_ns - timings_eval_duration_ns AS agent_ns
    FROM completed_tasks
    WHERE request_id IN (SELECT request_id FROM slow)
    QUALIFY row_number() OVER (
        PARTITION BY request_id ORDER BY queue_duration_ns + timings_total_duration_ns DESC, task_id
    ) = 1
),
piece AS (
    SELECT
        s.*,
        t.model,
        t.instance,
        t.delivery,
        CASE WHEN t.request_id IS NULL THEN [{'name': 'no task', 'ns': s.total_duration_ns}]
        ELSE [
            {'name': CASE WHEN t.delivery > 1 THEN 'redelivery' ELSE 'queue' END, 'ns': t.queue_duration_ns},
            {'name': 'slot', 'ns': t.slot_duration_ns},
            {'name': 'load', 'ns': t.timings_load_duration_ns},
            {'name': 'prompt', 'ns': t.timings_prompt_eval_duration_ns},
            {'name': 'generate', 'ns': t.timings_eval_duration_ns},
            {'name': 'agent', 'ns': t.agent_ns},
            {'name': 'mesh', 'ns': s.total_duration_ns - t.queue_duration_ns - t.timings_total_duration_ns}
        ] END AS pieces
    FROM slow AS s LEFT JOIN slowest_task AS t ON t.request_id = s.request_id
),
cause AS (
    SELECT *, list_sort(list_transform(pieces, lambda p: {'ns': p.ns, 'name': p.name}), 'DESC')[1] AS longest
    FROM piece
)
SELECT
    request_id,
    topology,
    total_duration_ns / 1e6 AS total_ms,
    longest.name AS cause,
    longest.ns / 1e6 AS cause_ms,
    model,
    instance,
    delivery AS deliveries,
    error_code
FROM cause
ORDER BY total_duration_ns DESC, request_id;
