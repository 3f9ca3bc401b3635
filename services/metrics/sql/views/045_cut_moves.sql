-- question: Which cuts of running pipelines were moved, and what for?
-- columns:
--   layers_before    how many layers each stage had; layers what they have since
--   slowest_ms       the slowest stage's step of so many rows; predicted_ms what it is to take after the move
--   gain             what is expected in tokens per second, 0.1 for a tenth
--   lost_s           for how long no token was to come, live_tokens of texts in work being read again
--   gained_s         what was to be spared by it within the horizon
CREATE OR REPLACE VIEW cut_moves AS
SELECT
    "at",
    pipeline,
    epoch,
    instance AS router,
    layers_before,
    layers,
    "rows",
    slowest_ms,
    predicted_ms,
    gain,
    rest_s,
    live_tokens,
    lost_s,
    gained_s
FROM cut_moved;
