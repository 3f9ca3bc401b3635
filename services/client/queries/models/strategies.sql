-- question: How sure and how right is each strategy?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   strategy          whose decisions
--   decisions         how many; ties of them that fell by lot
--   mean_share        agreement: the mean part of all weight that was for the winner; mean_margin its lead
--   unanimous         the part of decisions in which everybody who voted agreed
--   judged            decisions that a client's feedback has judged
--   accuracy          the part of those that were right; null if none was judged
SELECT
    d.strategy,
    count(*) AS decisions,
    count(*) FILTER (WHERE d.tie) AS ties,
    avg(d.share) AS mean_share,
    avg(d.margin) AS mean_margin,
    avg((d.share >= 1)::INTEGER) AS unanimous,
    count(f.request_id) AS judged,
    avg(list_contains(f.strategies_right, d.strategy)::INTEGER) AS accuracy
FROM decision_made AS d
LEFT JOIN feedback_received AS f
    ON f.request_id = d.request_id
    AND (list_contains(f.strategies_right, d.strategy) OR list_contains(f.strategies_wrong, d.strategy))
WHERE d.at >= $since::TIMESTAMP AND d.at < $until::TIMESTAMP
GROUP BY d.strategy
ORDER BY d.strategy;
