-- question: How was each ensemble decided, and was the decision right?
-- columns:
--   share            the winner's part of all weight; margin its lead over the runner-up
--   was_right        what a client's feedback said of this strategy; null without feedback, or if it abstained
CREATE OR REPLACE VIEW decisions AS
SELECT
    d.at,
    d.request_id,
    d.strategy,
    d.agents,
    d.abstained,
    d.missing,
    d.share,
    d.margin,
    d.tie,
    d.rounds,
    CASE
        WHEN list_contains(f.strategies_right, d.strategy) THEN true
        WHEN list_contains(f.strategies_wrong, d.strategy) THEN false
    END AS was_right,
    d.trace_id
FROM decision_made AS d
LEFT JOIN feedback_received AS f ON f.request_id = d.request_id;
