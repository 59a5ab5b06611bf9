-- Slopes: how each output of an evaluation changes in the gate of each component, at its mask. Evaluations measured with slopes cost more than those without.
CREATE TABLE slopes (
    evaluation_id BIGINT NOT NULL,
    slopes FLOAT[][] NOT NULL    -- slopes[query + 1][component + 1]; a game without queries has one list
);

ALTER TABLE batches ADD COLUMN with_slopes BOOLEAN DEFAULT false;      -- whether the evaluations were measured with slopes
ALTER TABLE extra_costs ADD COLUMN with_slopes BOOLEAN DEFAULT false;  -- the same
ALTER TABLE games ADD COLUMN slope_price DOUBLE;                       -- seconds of an evaluation with slopes over one without; NULL: not measured

CREATE OR REPLACE VIEW costs AS
SELECT run_id, phase,
       sum(evaluations)::BIGINT AS evaluations,
       sum(reused)::BIGINT AS reused,
       coalesce(sum(evaluations) FILTER (with_slopes), 0)::BIGINT AS with_slopes,
       round(sum(tokens))::BIGINT AS tokens,
       sum(seconds) AS seconds,
       sum(wall_seconds) AS wall_seconds
FROM (
    SELECT run_id, phase, evaluations, 0 AS reused, with_slopes, tokens, seconds, 0.0 AS wall_seconds FROM batches WHERE run_id IS NOT NULL
    UNION ALL
    SELECT run_id, phase, 0, count(*), false, 0.0, 0.0, 0.0 FROM reuses GROUP BY ALL
    UNION ALL
    SELECT run_id, phase, evaluations, 0, with_slopes, tokens, seconds, wall_seconds FROM extra_costs
)
GROUP BY ALL;

CREATE OR REPLACE VIEW run_costs AS
SELECT c.run_id, r.name, c.phase, c.evaluations, c.reused, c.with_slopes, c.tokens, c.seconds, c.wall_seconds,
       c.evaluations / nullif(c.wall_seconds, 0) AS evaluations_per_second
FROM costs c JOIN runs r USING (run_id)
ORDER BY r.started DESC, r.run_id, CASE c.phase WHEN 'calibrate' THEN 0 WHEN 'explore' THEN 1 WHEN 'analyse' THEN 2 WHEN 'validate' THEN 3 ELSE 4 END, c.phase;
