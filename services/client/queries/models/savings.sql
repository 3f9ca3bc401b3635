-- question: What did ensembles spare that asked no more members than their decision needed?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   effort          exact or bounded; full if all members were asked at once
--   ensembles       how many were decided so, in mean_waves waves
--   calls           members that were asked and answered, failures among them; saved_calls were asked nothing
--   saved           the part of all calls that was saved
--   saved_tokens    what those would have cost if each had cost what the others of its ensemble did on average
--   greatest_bound  how probable it was, at most, that all members would have decided otherwise
SELECT
    coalesce(effort, 'full') AS effort,
    count(*) AS ensembles,
    avg(coalesce(waves, 1)) AS mean_waves,
    sum(answered + missing)::BIGINT AS calls,
    sum(coalesce(saved_calls, 0))::BIGINT AS saved_calls,
    sum(coalesce(saved_calls, 0)) / sum(answered + missing + coalesce(saved_calls, 0)) AS saved,
    sum(coalesce(saved_tokens, 0))::BIGINT AS saved_tokens,
    max(bound) AS greatest_bound
FROM gather_completed AS g
WHERE g.at >= $since::TIMESTAMP AND g.at < $until::TIMESTAMP
GROUP BY ALL
ORDER BY effort;
