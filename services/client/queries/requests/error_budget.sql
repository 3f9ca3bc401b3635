-- question: How much of the error budget is used, hour by hour?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31'), objective (DOUBLE = 0.99)
-- columns:
--   hour              requests that ended in it (UTC)
--   requests          how many; failed how many of them had an error that was not the client's wish
--   success           the part that succeeded
--   budget_used       errors over the errors that the objective allows in that hour; above 1 it is broken
--   budget_used_total the same from the first hour to this one
--   worst_code        the most frequent error
WITH hourly AS (
    SELECT
        date_trunc('hour', "at") AS hour,
        count(*) AS requests,
        count(*) FILTER (WHERE error_code IS NOT NULL AND error_code <> 'cancelled') AS failed,
        mode(error_code) FILTER (WHERE error_code <> 'cancelled') AS worst_code
    FROM completed_requests
    WHERE "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
    GROUP BY hour
)
SELECT
    hour,
    requests,
    failed,
    1 - failed / requests AS success,
    failed / (requests * (1 - $objective::DOUBLE)) AS budget_used,
    sum(failed) OVER so_far / (sum(requests) OVER so_far * (1 - $objective::DOUBLE)) AS budget_used_total,
    worst_code
FROM hourly
WINDOW so_far AS (ORDER BY hour)
ORDER BY hour;
