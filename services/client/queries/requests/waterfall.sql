-- question: Where did the time of one request go?
-- parameters: request_id (VARCHAR)
-- columns:
--   what        the kind of piece: request, admit, enqueue, queue, redelivery, slot, load, prompt, generate,
--               agent (the rest of an agent's time), store, collect, decide, summarise, stage, and the moments completed,
--               retried, lost, cancelled, refused, died, replied
--   service     whose piece it is, and of which model
--   began_ms    when, since the first piece began; took_ms how long it took
--   instance    the service instance; host its host: pieces of different hosts are across clocks
--   task_id     the generation that it belongs to, with round and delivery; null for the request itself
--   started_s   when it began and ended, seconds since the epoch; ended_s is null for what never ended
--   detail      tokens, share of the votes, error; of a stage how many steps its time is the sum of (steps of a
--               batch are shared with other requests), and the sum of the hops to it
WITH
attempt AS (
    SELECT
        *,
        lag("at") OVER tries AS attempted_before,
        lead("at") OVER tries AS attempted_again
    FROM task_pulled WHERE request_id = $request_id
    WINDOW tries AS (PARTITION BY task_id, model ORDER BY delivery, "at")
),
outcome AS (
    SELECT
        c.*, p."at" AS pulled_at,
        epoch(p."at") AS begun_s,
        c.timings_load_duration_ns / 1e9 AS load_s,
        c.timings_prompt_eval_duration_ns / 1e9 AS prompt_s,
        c.timings_eval_duration_ns / 1e9 AS eval_s,
        c.slot_duration_ns / 1e9 AS slot_s,
        c.timings_total_duration_ns / 1e9 AS total_s,
        c.prompt_tokens || ' tokens read' AS read_detail,
        c.generated_tokens || ' tokens'
            || coalesce(', ' || printf('%.1f', c.tokens_per_s) || '/s', '') AS written_detail
    FROM task_completed AS c LEFT JOIN attempt AS p USING (span_id, task_id)
    WHERE c.request_id = $request_id
),
piece AS (
    SELECT 'admit' AS what, service, instance, host, NULL AS task_id, NULL AS model, 1 AS round, 1 AS delivery,
        epoch("at") - admit_duration_ns / 1e9 AS started_s, epoch("at") AS ended_s,
        topology || ' of ' || len(models) AS detail
    FROM request_accepted WHERE request_id = $request_id
    UNION ALL
    SELECT 'enqueue', service, instance, host, task_id, model, round, 1,
        epoch("at") - store_duration_ns / 1e9, epoch("at"), NULL
    FROM task_queued WHERE request_id = $request_id
    UNION ALL
    SELECT 'queue', service, instance, host, NULL, NULL, 1, delivery,
        epoch("at") - queue_duration_ns / 1e9, epoch("at"), nullif(waiting, 0) || ' behind it'
    FROM gather_pulled WHERE request_id = $request_id
    UNION ALL
    SELECT CASE WHEN attempted_before IS NULL THEN 'queue' ELSE 'redelivery' END,
        service, instance, host, task_id, model, round, delivery,
        coalesce(epoch(attempted_before), epoch("at") - queue_duration_ns / 1e9), epoch("at"),
        CASE WHEN attempted_before IS NULL THEN nullif(waiting, 0) || ' behind it' ELSE 'delivery ' || delivery END
    FROM attempt
    UNION ALL
    SELECT 'slot', service, instance, host, task_id, model, round, delivery, begun_s, begun_s + slot_s, NULL
    FROM outcome WHERE pulled_at IS NOT NULL
    UNION ALL
    SELECT 'load', service, instance, host, task_id, model, round, delivery,
        begun_s + slot_s, begun_s + slot_s + load_s, NULL
    FROM outcome WHERE pulled_at IS NOT NULL
    UNION ALL
    SELECT 'prompt', service, instance, host, task_id, model, round, delivery,
        begun_s + slot_s + load_s, begun_s + slot_s + load_s + prompt_s, read_detail
    FROM outcome WHERE pulled_at IS NOT NULL
    UNION ALL
    SELECT 'generate', service, instance, host, task_id, model, round, delivery,
        begun_s + slot_s + load_s + prompt_s, begun_s + slot_s + load_s + prompt_s + eval_s, written_detail
    FROM outcome WHERE pulled_at IS NOT NULL
    UNION ALL
    SELECT 'agent', service, instance, host, task_id, model, round, delivery,
        begun_s + slot_s + load_s + prompt_s + eval_s,
        greatest(begun_s + total_s, begun_s + slot_s + load_s + prompt_s + eval_s), NULL
    FROM outcome WHERE pulled_at IS NOT NULL
    UNION ALL
    SELECT 'store', service, instance, host, task_id, model, round, delivery,
        epoch("at") - store_duration_ns / 1e9, epoch("at"), error_message
    FROM outcome
    UNION ALL
    SELECT 'cancelled', service, instance, host, task_id, model, round, 1,
        epoch("at") - total_duration_ns / 1e9, epoch("at"), 'nobody waited for it any more'
    FROM task_cancelled WHERE request_id = $request_id
    UNION ALL
    SELECT 'lost', service, instance, host, task_id, model, round, delivery,
        epoch("at"), epoch(attempted_again), 'no outcome of this attempt'
    FROM attempt
    WHERE span_id NOT IN (SELECT span_id FROM task_completed WHERE request_id = $request_id)
        AND span_id NOT IN (SELECT span_id FROM task_cancelled WHERE request_id = $request_id)
        AND span_id NOT IN (SELECT span_id FROM task_retried WHERE request_id = $request_id)
    UNION ALL
    SELECT 'retried', service, instance, host, task_id, NULL, 1, delivery, epoch("at"), epoch("at"), error_message
    FROM task_retried WHERE request_id = $request_id
    UNION ALL
    SELECT 'collect', service, instance, host, NULL, NULL, rounds, 1,
        epoch("at") - (store_duration_ns + decide_duration_ns + collect_duration_ns) / 1e9,
        epoch("at") - (store_duration_ns + decide_duration_ns) / 1e9,
        answered || ' answers' || CASE WHEN missing > 0 THEN ', ' || missing || ' missing' ELSE '' END
    FROM gather_completed WHERE request_id = $request_id
    UNION ALL
    SELECT 'decide', service, instance, host, NULL, NULL, rounds, 1,
        epoch("at") - (store_duration_ns + decide_duration_ns) / 1e9, epoch("at") - store_duration_ns / 1e9,
        (SELECT string_agg(strategy || ' ' || round(100 * share) || ' %', ', ' ORDER BY strategy)
         FROM decision_made WHERE request_id = $request_id)
    FROM gather_completed WHERE request_id = $request_id
    UNION ALL
    SELECT 'store', service, instance, host, NULL, NULL, rounds, 1,
        epoch("at") - store_duration_ns / 1e9, epoch("at"), NULL
    FROM gather_completed WHERE request_id = $request_id
    UNION ALL
    SELECT 'summarise', service, instance, host, NULL, model, 1, delivery,
        epoch("at") - total_duration_ns / 1e9, epoch("at"),
        pieces || ' parts, ' || generated_tokens || ' tokens' || coalesce(', ' || error_message, '')
    FROM request_summarised WHERE request_id = $request_id
    UNION ALL
    -- Steps are told together, up to a second later: they are placed where their task begins to compute.
    SELECT 'stage', any_value(service), instance, any_value(host), NULL, pipeline || ' stage ' || stage, 1, 1,
        coalesce((SELECT min(begun_s + slot_s + load_s) FROM outcome), min(epoch("at") - compute_ns / 1e9)),
        coalesce((SELECT min(begun_s + slot_s + load_s) FROM outcome), min(epoch("at") - compute_ns / 1e9))
            + sum(compute_ns) / 1e9,
        printf('%d steps, hops %.1f ms', sum(steps)::BIGINT, sum(hop_ns) / 1e6)
    FROM stage_stepped WHERE list_contains(requests, $request_id) GROUP BY instance, pipeline, stage
    UNION ALL
    SELECT 'completed', service, instance, host, NULL, NULL, 1, 1, epoch("at"), epoch("at"), error_message
    FROM request_completed WHERE request_id = $request_id
    UNION ALL
    SELECT 'replied', service, instance, host, NULL, NULL, 1, 1, epoch("at"), epoch("at"), error_message
    FROM request_replied WHERE request_id = $request_id
    UNION ALL
    SELECT 'replied', service, instance, host, NULL, NULL, 1, 1, epoch("at"), epoch("at"), NULL
    FROM request_shared WHERE request_id = $request_id
    UNION ALL
    SELECT 'refused', service, instance, host, NULL, NULL, 1, 1, epoch("at"), epoch("at"), error_message
    FROM request_refused WHERE request_id = $request_id
    UNION ALL
    SELECT 'died', service, instance, host, task_id, NULL, 1, 1, epoch("at"), epoch("at"), error_message
    FROM message_died WHERE request_id = $request_id
)
SELECT
    what, service, model,
    round((started_s - min(started_s) OVER ()) * 1e3, 3) AS began_ms,
    round((ended_s - started_s) * 1e3, 3) AS took_ms,
    detail, instance, host, task_id, round, delivery, started_s, ended_s
FROM piece
ORDER BY started_s, ended_s, what;
