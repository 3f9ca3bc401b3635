-- question: What has each service instance done lately, and how far is it from the broker?
-- parameters: since_s (DOUBLE = 0)
-- columns, of what happened after since_s (seconds since the epoch):
--   instance        the service instance
--   tasks           generations that it completed, and their tokens
--   tokens
--   broker_rtt_ms   its last measured round trip to the broker, if there is one
WITH
since AS (SELECT make_timestamp(($since_s * 1e6)::BIGINT) AS moment),
done AS (
    SELECT instance, count(*) AS tasks, sum(generated_tokens)::BIGINT AS tokens
    FROM completed_tasks, since WHERE "at" > moment GROUP BY instance
),
sampled AS (
    SELECT instance, arg_max(broker_rtt_ns, "at") / 1e6 AS broker_rtt_ms
    FROM node_sampled, since WHERE "at" > moment - INTERVAL 1 MINUTE GROUP BY instance
)
SELECT instance, coalesce(tasks, 0) AS tasks, coalesce(tokens, 0) AS tokens, broker_rtt_ms
FROM done FULL JOIN sampled USING (instance) ORDER BY instance;
