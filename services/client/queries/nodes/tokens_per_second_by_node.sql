-- question: How fast does each node generate?
-- parameters: since (TIMESTAMP = '1970-01-01'), until (TIMESTAMP = '9999-12-31')
-- columns:
--   instance, host, model  who generates what, and where
--   tasks                  how many tasks; generated_tokens and prompt_tokens their tokens
--   tokens_per_s           generated tokens over the time of evaluation, of all tasks together
--   prompt_tokens_per_s    the same for reading prompts
--   task_tokens_per_s_p50  the median over tasks: with continuous batching tasks share the time
SELECT
    instance,
    coalesce(host, '-') AS host,
    model,
    count(*) AS tasks,
    sum(generated_tokens)::BIGINT AS generated_tokens,
    sum(prompt_tokens)::BIGINT AS prompt_tokens,
    sum(generated_tokens) * 1e9 / nullif(sum(timings_eval_duration_ns), 0) AS tokens_per_s,
    sum(prompt_tokens) * 1e9 / nullif(sum(timings_prompt_eval_duration_ns), 0) AS prompt_tokens_per_s,
    -- Single precision (seven digits): all of a group's values are in memory at once.
    quantile_cont(tokens_per_s::FLOAT, 0.50)::DOUBLE AS task_tokens_per_s_p50
FROM completed_tasks
WHERE error_code IS NULL AND "at" >= $since::TIMESTAMP AND "at" < $until::TIMESTAMP
GROUP BY instance, host, model
ORDER BY instance, host, model;
