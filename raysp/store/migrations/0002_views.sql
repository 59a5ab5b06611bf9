-- Masks in SQL: how many are kept, how many and which are removed, whether one is kept.
CREATE MACRO kept(mask) AS bit_count(mask::BIT);
CREATE MACRO removed(mask, n) AS n - bit_count(mask::BIT);
CREATE MACRO is_kept(mask, component) AS get_bit(mask::BIT, component::INTEGER) = 1;
CREATE MACRO removed_components(mask, n) AS list_filter(range(n), lambda i: get_bit(mask::BIT, i::INTEGER) = 0);

-- Every evaluation that a run asked for, bought or found.
CREATE VIEW requests AS
SELECT run_id, phase, round, position, evaluation_id, false AS reused FROM evaluations
UNION ALL
SELECT run_id, phase, round, position, evaluation_id, true AS reused FROM reuses;

-- What each phase of each run has cost so far.
CREATE VIEW costs AS
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
    SELECT run_id, phase, evaluations, 0, tokens, seconds, wall_seconds FROM spent
)
GROUP BY ALL;

CREATE VIEW run_costs AS
SELECT c.run_id, r.name, c.phase, c.evaluations, c.reused, c.tokens, c.seconds, c.wall_seconds,
       c.evaluations / nullif(c.wall_seconds, 0) AS evaluations_per_second
FROM costs c JOIN runs r USING (run_id)
ORDER BY r.started DESC, r.run_id, CASE c.phase WHEN 'calibrate' THEN 0 WHEN 'explore' THEN 1 WHEN 'analyse' THEN 2 WHEN 'validate' THEN 3 ELSE 4 END, c.phase;

-- Newest run first, strongest interaction first.
CREATE VIEW top_interactions AS
SELECT i.run_id, r.name, i.rank, i.labels, i.set_order, i.kind, i.index, i.value, i.lo, i.hi, i.significant, i.estimate, i.exact, i.verified, i.components
FROM interactions i JOIN runs r USING (run_id)
ORDER BY r.started DESC, i.run_id, i.rank;

CREATE VIEW run_summary AS
SELECT r.run_id, r.name, r.set_name, r.status, r.lens, r.explorer, r.model, r.dtype, r.n, r.seed, r.value_intact, r.value_empty, r.r2, r.r2_singles, r.verdict,
       coalesce(c.evaluations, 0) AS evaluations, coalesce(c.reused, 0) AS reused, coalesce(c.tokens, 0) AS tokens, coalesce(c.seconds, 0) AS seconds,
       coalesce(i.interactions, 0) AS interactions, coalesce(i.verified, 0) AS verified, i.strongest,
       r.started, r.finished, r.error
FROM runs r
LEFT JOIN (
    SELECT run_id, sum(evaluations)::BIGINT AS evaluations, sum(reused)::BIGINT AS reused, sum(tokens)::BIGINT AS tokens, sum(seconds) AS seconds
    FROM costs GROUP BY run_id
) c USING (run_id)
LEFT JOIN (
    SELECT run_id, count(*) AS interactions, count(*) FILTER (verified) AS verified, arg_min(labels, rank) AS strongest
    FROM interactions GROUP BY run_id
) i USING (run_id)
ORDER BY r.started DESC, r.run_id;
