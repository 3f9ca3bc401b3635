-- question: What did every peer do for every task? The log of `choir export`.
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31'), epoch_from (BIGINT = 0), sequence_from (BIGINT = 0), count (BIGINT = 1000)
-- columns:
--   at, request_id, task_id, topology, model, instance, host
--   total_duration_s, load_duration_s, prompt_eval_duration_s, eval_duration_s, queue_duration_s, first_token_s
--   prompt_tokens, generated_tokens, tokens_per_s
--   network_latency_ms  half the round trip of a ping from the peer to the broker, as it last measured it before the
--                       task's end; two peers are two such hops apart
--   error_code
--   stream_epoch, sequence  where the row stands in the stream: a page goes on after the last row of the one before
WITH page AS (
    SELECT * FROM completed_tasks
    WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
        AND (stream_epoch, sequence) > ($epoch_from::BIGINT, $sequence_from::BIGINT)
    ORDER BY stream_epoch, sequence
    LIMIT $count::BIGINT
)
SELECT
    page.at,
    page.request_id,
    page.task_id,
    page.topology,
    page.model,
    page.instance,
    page.host,
    timings_total_duration_ns / 1e9 AS total_duration_s,
    timings_load_duration_ns / 1e9 AS load_duration_s,
    timings_prompt_eval_duration_ns / 1e9 AS prompt_eval_duration_s,
    timings_eval_duration_ns / 1e9 AS eval_duration_s,
    queue_duration_ns / 1e9 AS queue_duration_s,
    timings_first_token_ns / 1e9 AS first_token_s,
    prompt_tokens,
    generated_tokens,
    tokens_per_s,
    ping.broker_rtt_ns / 2e6 AS network_latency_ms,
    error_code,
    page.stream_epoch,
    page.sequence
FROM page
ASOF LEFT JOIN node_sampled AS ping ON page.instance = ping.instance AND page.at >= ping.at
ORDER BY page.stream_epoch, page.sequence;
