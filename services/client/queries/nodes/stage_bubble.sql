-- question: How much of their time do the stages of a pipeline stand idle?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   pipeline, stage, instance  whose steps
--   steps                      how many; tokens in them; mean_batch the sequences in one
--   compute_ms                 per step in the model; bubble_ms with nothing to compute; hop_ms from the stage before,
--                              across clocks if that is another host
--   bubble_share               the part of computing and bubble that was bubble
SELECT
    pipeline,
    stage,
    instance,
    sum(steps)::BIGINT AS steps,
    sum(tokens)::BIGINT AS tokens,
    sum(batch_size) / sum(steps) AS mean_batch,
    sum(compute_ns) / sum(steps) / 1e6 AS compute_ms,
    sum(waiting_ns) / sum(steps) / 1e6 AS bubble_ms,
    sum(hop_ns) / sum(steps) / 1e6 AS hop_ms,
    sum(waiting_ns) / nullif(sum(waiting_ns) + sum(compute_ns), 0) AS bubble_share
FROM stage_stepped
WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
GROUP BY pipeline, stage, instance
ORDER BY pipeline, stage, instance;
