-- Tables. Text instead of enums, as enums cannot grow. Times are UTC.
-- The order of a set is the column set_order: ORDER is a reserved word of SQL and would want quotes.

CREATE TABLE games (
    game_id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    n INTEGER NOT NULL,
    description TEXT NOT NULL,   -- JSON: all that the values depend on
    source TEXT,                 -- the text that the components' start and stop point into
    notes TEXT[]
);

CREATE TABLE components (
    game_id INTEGER NOT NULL,
    component INTEGER NOT NULL,  -- column of the masks
    label TEXT NOT NULL,
    kind TEXT NOT NULL,
    start INTEGER,
    stop INTEGER,
    size INTEGER NOT NULL        -- model tokens
);

CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    name TEXT,
    set_name TEXT,               -- the example set this run belongs to
    status TEXT NOT NULL,        -- running, done, failed, interrupted
    lens TEXT NOT NULL,
    explorer TEXT NOT NULL,
    model TEXT,
    dtype TEXT,
    game_id INTEGER NOT NULL,
    n INTEGER NOT NULL,
    seed BIGINT NOT NULL,
    spec TEXT NOT NULL,          -- JSON
    version TEXT NOT NULL,       -- of raysp
    started TIMESTAMP NOT NULL,
    finished TIMESTAMP,
    value_intact DOUBLE,
    value_empty DOUBLE,
    index TEXT,                  -- of the reported interactions
    r2 DOUBLE,                   -- of the surrogate on held-out masks, with an interval
    r2_lo DOUBLE,
    r2_hi DOUBLE,
    r2_singles DOUBLE,           -- of the best additive model on the same masks
    verdict TEXT,                -- reliable, use with care, do not trust
    reasons TEXT[],
    metrics TEXT,                -- JSON: all that the validation measured, the assumption check included
    notes TEXT[],
    diagnostics TEXT,            -- JSON: the explorer's own
    error TEXT
);

CREATE TABLE evaluations (
    evaluation_id BIGINT NOT NULL,
    game_id INTEGER NOT NULL,
    mask BLOB NOT NULL,          -- packed: component 0 is the highest bit of the first byte, 1 = kept
    value DOUBLE NOT NULL,
    run_id TEXT NOT NULL,        -- the run that paid
    phase TEXT NOT NULL,         -- calibrate, explore, validate
    round INTEGER NOT NULL,
    position INTEGER NOT NULL,   -- within the round
    tokens DOUBLE NOT NULL,      -- this evaluation's share of its batch
    seconds DOUBLE NOT NULL,     -- of model time, its share too
    created TIMESTAMP NOT NULL,
    UNIQUE (game_id, mask)
);

CREATE TABLE reuses (            -- a run asked for what the store held already
    run_id TEXT NOT NULL,
    phase TEXT NOT NULL,
    round INTEGER NOT NULL,
    position INTEGER NOT NULL,
    evaluation_id BIGINT NOT NULL
);

CREATE TABLE spent (             -- costs beyond those of the evaluations kept
    run_id TEXT NOT NULL,
    phase TEXT NOT NULL,
    evaluations BIGINT NOT NULL,
    tokens DOUBLE NOT NULL,
    seconds DOUBLE NOT NULL,
    wall_seconds DOUBLE NOT NULL
);

CREATE TABLE singles (
    run_id TEXT NOT NULL,
    component INTEGER NOT NULL,
    label TEXT NOT NULL,
    value DOUBLE NOT NULL,
    lo DOUBLE,
    hi DOUBLE,
    method TEXT                  -- removed: exact single ablations; lasso: estimates
);

CREATE TABLE interactions (
    run_id TEXT NOT NULL,
    rank INTEGER NOT NULL,       -- 1 is the strongest
    components INTEGER[] NOT NULL,
    labels TEXT NOT NULL,        -- never × fails
    set_order INTEGER NOT NULL,  -- how many components
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

CREATE TABLE validations (
    run_id TEXT NOT NULL,
    role TEXT NOT NULL,          -- why this set was measured: top, random, low_impact
    components INTEGER[] NOT NULL,
    labels TEXT NOT NULL,
    set_order INTEGER NOT NULL,
    estimate DOUBLE,
    exact DOUBLE NOT NULL,
    error DOUBLE,                -- estimate - exact
    joint DOUBLE,                -- effect of removing the set
    parts DOUBLE,                -- sum of the effects of removing each alone
    kind TEXT
);

CREATE TABLE heldout (           -- fresh masks on which the surrogate is scored
    run_id TEXT NOT NULL,
    mask BLOB,
    predicted DOUBLE NOT NULL,
    predicted_singles DOUBLE,    -- by the best additive model
    exact DOUBLE NOT NULL
);

CREATE TABLE events (
    time TIMESTAMP NOT NULL,
    run_id TEXT,
    kind TEXT NOT NULL,
    message TEXT NOT NULL
);
