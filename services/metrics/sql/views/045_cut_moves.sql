-- question: Which cuts of running pipelines were moved, and what for?
-- columns:
--   layers_before    how many layers each stage had; layers what they have since
--   slowest_ms       the slowest stage's step of so many rows; predicted_ms what it is to take after the move
--   gain             what is expected in tokens per second, 0.1 for a tenth
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
    rest_s
FROM cut_moved;
