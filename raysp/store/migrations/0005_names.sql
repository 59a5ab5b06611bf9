-- Values and columns in the words of the field; rows stored before are rewritten.

UPDATE prunings SET method = 'refined' WHERE method = 'bettered';
UPDATE prunings SET method = 'singles_refined' WHERE method = 'singles_bettered';
UPDATE data_scores SET metric = 'brittleness_drop' WHERE metric = 'fall';
UPDATE data_scores SET metric = 'flip_rate' WHERE metric = 'flipped';

ALTER TABLE selections RENAME COLUMN how TO rule;                 -- 'drop harmful:5%', ...
ALTER TABLE validations RENAME COLUMN joint TO joint_effect;      -- of removing the whole set
ALTER TABLE validations RENAME COLUMN parts TO sum_of_effects;    -- of removing each of its components alone
ALTER TABLE spent RENAME TO extra_costs;                          -- what no stored evaluation carries

CREATE OR REPLACE VIEW costs AS
SELECT run_id, phase,
       sum(evaluations)::BIGINT AS evaluations,
       sum(reused)::BIGINT AS reused,
       round(sum(tokens))::BIGINT AS tokens,
       sum(seconds) AS seconds,
       sum(wall_seconds) AS wall_seconds
FROM (
    SELECT run_id, phase, count(*) AS evaluations, 0 AS reused, sum(tokens) AS tokens, sum(seconds) AS seconds, 0.0 AS wall_seconds
    FROM evaluations GROUP BY ALL
    UNION ALL
    SELECT run_id, phase, 0, count(*), 0.0, 0.0, 0.0 FROM reuses GROUP BY ALL
    UNION ALL
    SELECT run_id, phase, evaluations, 0, tokens, seconds, wall_seconds FROM extra_costs
)
GROUP BY ALL;

-- Newest run first; of each query the ten examples that help most and the ten that harm most, with the text of the component's first example.
CREATE OR REPLACE VIEW helpful_examples AS
WITH sides AS (
    SELECT s.run_id, s.query, s.component, s.label, s.value, s.lo, s.hi, s.method, r.name, r.started, r.game_id,
           -- A lower loss is better; a higher value of any other kind is.
           CASE WHEN json_extract_string(g.description, '$.value') = 'loss' THEN -s.value ELSE s.value END AS help
    FROM query_singles s JOIN runs r USING (run_id) JOIN games g ON g.game_id = r.game_id
    WHERE s.value <> 0
), ranked AS (
    SELECT *, CASE WHEN help > 0 THEN 'helpful' ELSE 'harmful' END AS side,
           row_number() OVER (PARTITION BY run_id, query, help > 0 ORDER BY abs(help) DESC, component) AS rank
    FROM sides
    QUALIFY rank <= 10
), texts AS (
    SELECT game_id, component, count(*) AS examples, min(example) AS example, arg_min(prompt, example) AS prompt, arg_min(completion, example) AS completion
    FROM examples GROUP BY ALL
)
SELECT k.run_id, k.name, k.query, q.label AS query_label, k.side, k.rank, k.component, k.label, k.value, k.lo, k.hi, k.method,
       t.examples, t.example, t.prompt, t.completion
FROM ranked k
LEFT JOIN queries q ON q.game_id = k.game_id AND q.query = k.query
LEFT JOIN texts t ON t.game_id = k.game_id AND t.component = k.component
ORDER BY k.started DESC, k.run_id, k.query, k.side DESC, k.rank;

CREATE OR REPLACE VIEW query_summary AS
SELECT s.run_id, r.name, s.query, s.label, q.prompt, q.target, q.foil, s.value_intact, s.value_empty, s.r2, s.r2_lo, s.r2_hi, s.r2_singles, s.lds, s.lds_singles,
       h.helpful, h.harmful, coalesce(i.interactions, 0) AS interactions, coalesce(i.verified, 0) AS verified, i.strongest, i.kind AS strongest_kind
FROM query_scores s
JOIN runs r USING (run_id)
LEFT JOIN queries q ON q.game_id = r.game_id AND q.query = s.query
LEFT JOIN (
    SELECT run_id, query, max(label) FILTER (side = 'helpful' AND rank = 1) AS helpful, max(label) FILTER (side = 'harmful' AND rank = 1) AS harmful
    FROM helpful_examples GROUP BY ALL
) h ON h.run_id = s.run_id AND h.query = s.query
LEFT JOIN (
    SELECT run_id, query, count(*) AS interactions, count(*) FILTER (verified) AS verified, arg_min(labels, rank) AS strongest, arg_min(kind, rank) AS kind
    FROM query_interactions GROUP BY ALL
) i ON i.run_id = s.run_id AND i.query = s.query
ORDER BY r.started DESC, s.run_id, s.query;
