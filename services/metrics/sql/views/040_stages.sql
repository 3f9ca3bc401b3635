-- question: What did the stages of pipelines do, step by step?
-- columns:
--   compute_ms       in the model; hop_ms from the previous stage, across clocks if that is another host
--   bubble_ms        how long the stage had nothing to compute before the step
--   sequences        sequences in the batch, summed over the steps that were told together; so are all times
CREATE OR REPLACE VIEW stages AS
SELECT
    "at",
    pipeline,
    stage,
    epoch,
    instance,
    host,
    steps,
    batch_size AS sequences,
    tokens,
    compute_ns / 1e6 AS compute_ms,
    hop_ns / 1e6 AS hop_ms,
    waiting_ns / 1e6 AS bubble_ms,
    requests
FROM stage_stepped;
