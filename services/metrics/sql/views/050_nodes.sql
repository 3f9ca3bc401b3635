-- question: What does each service instance look like, as it last said?
-- columns:
--   at               when it said so (UTC)
--   cpu_percent      of one core, its own process; load_average of its host
--   broker_rtt_ms    the round trip of a ping to the broker
--   queued           commands that wait or are in work; only the router knows
CREATE OR REPLACE VIEW nodes AS
SELECT
    service,
    instance,
    arg_max(host, "at") AS host,
    max("at") AS "at",
    arg_max(cpu_percent, "at") AS cpu_percent,
    arg_max(memory_used_bytes, "at") AS memory_used_bytes,
    arg_max(host_memory_free_bytes, "at") AS host_memory_free_bytes,
    arg_max(load_average, "at") AS load_average,
    arg_max(slots, "at") AS slots,
    arg_max(busy, "at") AS busy,
    arg_max(queued, "at") AS queued,
    arg_max(broker_rtt_ns, "at") / 1e6 AS broker_rtt_ms,
    arg_max(events_dropped, "at") AS events_dropped,
    arg_max(gpus, "at") AS gpus
FROM node_sampled
GROUP BY service, instance;
