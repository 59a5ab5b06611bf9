-- Training sets: the queries that a training answers, the examples behind the components, each training's outputs, and what a run says of each query.

CREATE TABLE queries (
    game_id INTEGER NOT NULL,
    query INTEGER NOT NULL,      -- its place in a row of outputs, from 0: outputs[query + 1] in SQL
    label TEXT NOT NULL,
    prompt TEXT NOT NULL,
    target TEXT NOT NULL,        -- the answer that an output is about
    foil TEXT                    -- what it is compared with
);

CREATE TABLE examples (
    game_id INTEGER NOT NULL,
    example INTEGER NOT NULL,    -- number in the training set
    component INTEGER NOT NULL,  -- the column of the masks that it belongs to
    prompt TEXT NOT NULL,
    completion TEXT NOT NULL
);

CREATE TABLE outputs (
    evaluation_id BIGINT NOT NULL,
    outputs DOUBLE[] NOT NULL    -- one a query; the evaluation's value is their mean
);

CREATE TABLE query_scores (
    run_id TEXT NOT NULL,
    query INTEGER NOT NULL,
    label TEXT NOT NULL,
    value_intact DOUBLE,
    value_empty DOUBLE,
    r2 DOUBLE,                   -- of the query's surrogate on held-out subsets, with an interval
    r2_lo DOUBLE,
    r2_hi DOUBLE,
    r2_singles DOUBLE,           -- of the best additive model on the same subsets
    lds DOUBLE,                  -- linear datamodeling score: Spearman's correlation of predicted and actual outputs there
    lds_singles DOUBLE
);

CREATE TABLE query_singles (
    run_id TEXT NOT NULL,
    query INTEGER NOT NULL,
    component INTEGER NOT NULL,
    label TEXT NOT NULL,
    value DOUBLE NOT NULL,       -- output of all less output of all without it
    lo DOUBLE,
    hi DOUBLE,
    method TEXT                  -- removed: exact single ablations; surrogate or lasso: mean effects over subsets
);

CREATE TABLE query_interactions (
    run_id TEXT NOT NULL,
    query INTEGER NOT NULL,
    rank INTEGER NOT NULL,       -- 1 is the strongest of its query
    components INTEGER[] NOT NULL,
    labels TEXT NOT NULL,
    set_order INTEGER NOT NULL,
    index TEXT NOT NULL,
    value DOUBLE NOT NULL,
    lo DOUBLE,
    hi DOUBLE,
    significant BOOLEAN,
    kind TEXT,                   -- synergy, redundancy, additive
    estimate DOUBLE,             -- the surrogate's deviation from additivity
    exact DOUBLE,                -- the deviation measured by exact ablations
    verified BOOLEAN NOT NULL
);

CREATE TABLE query_heldout (     -- the subsets that a query's surrogate is scored on
    run_id TEXT NOT NULL,
    query INTEGER NOT NULL,
    mask BLOB,
    predicted DOUBLE NOT NULL,
    predicted_singles DOUBLE,    -- by the best additive model
    exact DOUBLE NOT NULL
);

CREATE TABLE data_scores (       -- how well methods foretell trainings on other subsets
    run_id TEXT NOT NULL,
    method TEXT,                 -- NULL: of the trainings themselves
    metric TEXT NOT NULL,        -- lds, lds_floor, ceiling_halves, leave_one_out, mislabel_auc, fall, ...
    score DOUBLE,
    lo DOUBLE,
    hi DOUBLE,
    query INTEGER,               -- NULL: the mean over the queries
    k INTEGER,                   -- components removed, where that is the point
    queries INTEGER,
    subsets INTEGER,
    seeds INTEGER,
    fraction DOUBLE,             -- share of the components in a subset
    note TEXT,
    created TIMESTAMP NOT NULL
);

CREATE TABLE selections (
    run_id TEXT NOT NULL,
    how TEXT NOT NULL,           -- drop harmful:5%, ...
    dropped INTEGER,             -- how many components
    kept INTEGER,
    components INTEGER[],        -- those kept
    heldout_before DOUBLE,       -- on held-out queries, trained on all
    heldout_after DOUBLE,        -- and on those kept
    difference DOUBLE,           -- after less before, with an interval
    lo DOUBLE,
    hi DOUBLE,
    seeds INTEGER,
    note TEXT,
    created TIMESTAMP NOT NULL
);

-- Newest run first; of each query the ten examples that helped most and the ten that harmed most, with the text of the component's first example.
CREATE VIEW helpful_examples AS
WITH sides AS (
    SELECT s.run_id, s.query, s.component, s.label, s.value, s.lo, s.hi, s.method, r.name, r.started, r.game_id,
           -- A loss is better when it is lower; every other value when it is higher.
           CASE WHEN json_extract_string(g.description, '$.value') = 'loss' THEN -s.value ELSE s.value END AS help
    FROM query_singles s JOIN runs r USING (run_id) JOIN games g ON g.game_id = r.game_id
    WHERE s.value <> 0
), ranked AS (
    SELECT *, CASE WHEN help > 0 THEN 'helpful' ELSE 'harmful' END AS side,
           row_number() OVER (PARTITION BY run_id, query, help > 0 ORDER BY abs(help) DESC, component) AS place
    FROM sides
    QUALIFY place <= 10
), texts AS (
    SELECT game_id, component, count(*) AS examples, min(example) AS example, arg_min(prompt, example) AS prompt, arg_min(completion, example) AS completion
    FROM examples GROUP BY ALL
)
SELECT k.run_id, k.name, k.query, q.label AS query_label, k.side, k.place, k.component, k.label, k.value, k.lo, k.hi, k.method,
       t.examples, t.example, t.prompt, t.completion
FROM ranked k
LEFT JOIN queries q ON q.game_id = k.game_id AND q.query = k.query
LEFT JOIN texts t ON t.game_id = k.game_id AND t.component = k.component
ORDER BY k.started DESC, k.run_id, k.query, k.side DESC, k.place;

CREATE VIEW query_summary AS
SELECT s.run_id, r.name, s.query, s.label, q.prompt, q.target, q.foil, s.value_intact, s.value_empty, s.r2, s.r2_lo, s.r2_hi, s.r2_singles, s.lds, s.lds_singles,
       h.helpful, h.harmful, coalesce(i.interactions, 0) AS interactions, coalesce(i.verified, 0) AS verified, i.strongest, i.kind AS strongest_kind
FROM query_scores s
JOIN runs r USING (run_id)
LEFT JOIN queries q ON q.game_id = r.game_id AND q.query = s.query
LEFT JOIN (
    SELECT run_id, query, max(label) FILTER (side = 'helpful' AND place = 1) AS helpful, max(label) FILTER (side = 'harmful' AND place = 1) AS harmful
    FROM helpful_examples GROUP BY ALL
) h ON h.run_id = s.run_id AND h.query = s.query
LEFT JOIN (
    SELECT run_id, query, count(*) AS interactions, count(*) FILTER (verified) AS verified, arg_min(labels, rank) AS strongest, arg_min(kind, rank) AS kind
    FROM query_interactions GROUP BY ALL
) i ON i.run_id = s.run_id AND i.query = s.query
ORDER BY r.started DESC, s.run_id, s.query;
