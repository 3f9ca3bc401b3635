-- question: What did each peer of a chain do, and what did the network between them cost?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31'), request_id (VARCHAR = ''), count (BIGINT = 100)
-- columns:
--   request_id         the chain; only this one if it is given, else the last `count` of them
--   peer               its place: 1 generates, the others summarise
--   model, instance, host, error_code
--   total_s, load_s, prompt_eval_s, eval_s  the peer's durations in seconds
--   prompt_tokens, generated_tokens, tokens_per_s
--   network_ms         from the end of the peer before (for the first, from acceptance) to the start of this one,
--                      less the time in the queue; across clocks where the hosts differ
WITH chain AS (
    SELECT request_id, "at" AS accepted_at FROM request_accepted
    WHERE topology = 'chain' AND "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
        AND ($request_id::VARCHAR = '' OR request_id = $request_id::VARCHAR)
    ORDER BY "at" DESC, request_id
    LIMIT $count::BIGINT
),
task AS (
    SELECT
        t.*,
        c.accepted_at,
        t.at - to_microseconds(((t.timings_total_duration_ns + t.store_duration_ns) / 1e3)::BIGINT) AS begun_at
    FROM completed_tasks AS t JOIN chain AS c ON c.request_id = t.request_id
),
placed AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY request_id ORDER BY begun_at, task_id) AS peer,
        lag("at") OVER (PARTITION BY request_id ORDER BY begun_at, task_id) AS before_at
    FROM task
)
SELECT
    request_id,
    peer,
    model,
    instance,
    host,
    timings_total_duration_ns / 1e9 AS total_s,
    timings_load_duration_ns / 1e9 AS load_s,
    timings_prompt_eval_duration_ns / 1e9 AS prompt_eval_s,
    timings_eval_duration_ns / 1e9 AS eval_s,
    prompt_tokens,
    generated_tokens,
    tokens_per_s,
    greatest(
        0,
        (epoch(begun_at) - epoch(coalesce(before_at, accepted_at))) * 1e3 - queue_duration_ns / 1e6
    ) AS network_ms,
    error_code
FROM placed
ORDER BY request_id, peer;
