-- question: What did each generation cost?
-- columns:
--   at               when its answer was stored (UTC)
--   topology         how its request travels: single, ensemble or chain; null if it ended before it was taken
--   instance, host   who did it, and where
--   queue_ms         in the queue of commands, by the broker's clock and the agent's
--   slot_ms          waiting for a place in the backend's batch
--   prompt_eval_ms   reading the prompt; eval_ms generating; first_token_ms from the backend's start
--   total_ms         from taking the command to the end of generating
--   tokens_per_s     generated tokens over the time of evaluation
CREATE OR REPLACE VIEW tasks AS
SELECT
    "at",
    request_id,
    task_id,
    round,
    topology,
    model,
    instance,
    host,
    finish_reason,
    prompt_tokens,
    generated_tokens,
    tokens_per_s,
    timings_total_duration_ns / 1e6 AS total_ms,
    queue_duration_ns / 1e6 AS queue_ms,
    slot_duration_ns / 1e6 AS slot_ms,
    timings_load_duration_ns / 1e6 AS load_ms,
    timings_prompt_eval_duration_ns / 1e6 AS prompt_eval_ms,
    timings_eval_duration_ns / 1e6 AS eval_ms,
    timings_first_token_ns / 1e6 AS first_token_ms,
    store_duration_ns / 1e6 AS store_ms,
    delivery,
    error_code,
    error_message,
    trace_id,
    span_id
FROM completed_tasks;
