-- question: What do the figures of a time leave out?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   what              open (requests without an end yet), missing (events that the stream dropped before they were
--                     stored), dropped (events that a service could not send) or unread (events that no table holds)
--   who               the topology of open requests, the numbers of missing events, the instance that dropped
--                     them, the kind of the unread ones
--   times             how many
--   from_at, to_at    from when to when (UTC); of missing events, the events around them
SELECT 'open' AS what, topology AS who, count(*) AS times, min("at") AS from_at, max("at") AS to_at
FROM request_accepted
WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
    AND request_id NOT IN (SELECT request_id FROM request_completed WHERE request_id IS NOT NULL)
GROUP BY topology
UNION ALL
SELECT 'missing', first_sequence || ' to ' || last_sequence, last_sequence - first_sequence + 1, after_at, before_at
FROM missing_events
WHERE before_at >= $since::TIMESTAMP AND coalesce(after_at, before_at) < $until::TIMESTAMP
UNION ALL
SELECT 'dropped', instance, sum(more)::BIGINT, min("at"), max("at")
FROM (
    SELECT
        "at",
        instance,
        -- The count begins anew with the instance.
        CASE WHEN events_dropped >= before THEN events_dropped - before ELSE events_dropped END AS more
    FROM (
        SELECT "at", instance, events_dropped,
            lag(events_dropped, 1, 0) OVER (PARTITION BY instance ORDER BY "at") AS before
        FROM node_sampled
    )
)
WHERE more > 0 AND "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
GROUP BY instance
UNION ALL
SELECT 'unread', kind, count(*), min(stored_at), max(stored_at)
FROM unread_events
WHERE stored_at >= $since::TIMESTAMP AND stored_at < $until::TIMESTAMP
GROUP BY kind
ORDER BY what, from_at, who;
