-- What the evaluations of a batch have in common is stored once, and no index of masks in the file: the process that writes the store keeps one in memory. A mask
-- of 256 components with its value takes some 45 bytes in place of 70 to 140.

CREATE TABLE batches (           -- evaluations that were paid for together
    batch_id INTEGER NOT NULL,
    game_id INTEGER NOT NULL,
    run_id TEXT,                 -- the run that paid; NULL: it was removed, and other runs use the evaluations
    phase TEXT NOT NULL,         -- calibrate, explore, validate
    round INTEGER NOT NULL,
    evaluations INTEGER NOT NULL,
    tokens DOUBLE NOT NULL,      -- of the whole batch
    seconds DOUBLE NOT NULL,     -- of model time, of the whole batch
    created TIMESTAMP NOT NULL
);

CREATE TABLE measurements (      -- a mask and its value; a mask occurs once in a game
    evaluation_id BIGINT NOT NULL,
    batch_id INTEGER NOT NULL,
    mask BLOB NOT NULL,          -- packed: component 0 is the highest bit of the first byte, 1 = kept
    value DOUBLE NOT NULL,
    position INTEGER NOT NULL    -- within the round
);

CREATE TEMP TABLE conversion AS  -- all evaluations of a batch carry the same share of its cost
SELECT row_number() OVER (ORDER BY min(evaluation_id)) AS batch_id, game_id, run_id, phase, round, created, tokens, seconds, count(*) AS evaluations
FROM evaluations GROUP BY game_id, run_id, phase, round, created, tokens, seconds;

INSERT INTO batches
SELECT batch_id, game_id, run_id, phase, round, evaluations, evaluations * tokens, evaluations * seconds, created FROM conversion ORDER BY batch_id;

INSERT INTO measurements
SELECT e.evaluation_id, c.batch_id, e.mask, e.value, e.position
FROM evaluations e JOIN conversion c USING (game_id, run_id, phase, round, created, tokens, seconds)
ORDER BY e.evaluation_id;

DROP TABLE conversion;
DROP TABLE evaluations;

CREATE VIEW evaluations AS
SELECT m.evaluation_id, b.game_id, m.mask, m.value, b.run_id, b.phase, b.round, m.position,
       b.tokens / b.evaluations AS tokens, b.seconds / b.evaluations AS seconds, b.created
FROM measurements m JOIN batches b USING (batch_id);

CREATE OR REPLACE VIEW requests AS
SELECT b.run_id, b.phase, b.round, m.position, m.evaluation_id, false AS reused
FROM measurements m JOIN batches b USING (batch_id) WHERE b.run_id IS NOT NULL
UNION ALL
SELECT run_id, phase, round, position, evaluation_id, true AS reused FROM reuses;

CREATE OR REPLACE VIEW costs AS
SELECT run_id, phase,
       sum(evaluations)::BIGINT AS evaluations,
       sum(reused)::BIGINT AS reused,
       round(sum(tokens))::BIGINT AS tokens,
       sum(seconds) AS seconds,
       sum(wall_seconds) AS wall_seconds
FROM (
    SELECT run_id, phase, evaluations, 0 AS reused, tokens, seconds, 0.0 AS wall_seconds FROM batches WHERE run_id IS NOT NULL
    UNION ALL
    SELECT run_id, phase, 0, count(*), 0.0, 0.0, 0.0 FROM reuses GROUP BY ALL
    UNION ALL
    SELECT run_id, phase, evaluations, 0, tokens, seconds, wall_seconds FROM extra_costs
)
GROUP BY ALL;
