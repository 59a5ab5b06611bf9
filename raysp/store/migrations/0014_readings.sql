-- Single effects in two readings: at the intact input (value) and on average over contexts (average).
ALTER TABLE singles ADD COLUMN average DOUBLE;          -- mean effect over contexts; NULL: unknown
ALTER TABLE singles ADD COLUMN average_lo DOUBLE;
ALTER TABLE singles ADD COLUMN average_hi DOUBLE;
ALTER TABLE query_singles ADD COLUMN average DOUBLE;
ALTER TABLE query_singles ADD COLUMN average_lo DOUBLE;
ALTER TABLE query_singles ADD COLUMN average_hi DOUBLE;

CREATE TABLE surrogate_points (      -- measured values written into a surrogate: at these masks it is its sum of terms plus the residual
    run_id TEXT NOT NULL,
    query INTEGER,                   -- NULL: of the run's own value
    point INTEGER NOT NULL,          -- from 0
    mask BLOB NOT NULL,              -- packed bits, 1 = kept
    residual DOUBLE NOT NULL,
    held_out DOUBLE,                 -- residual of a fit that did not see the mask; NULL: every fit did
    inclusion DOUBLE NOT NULL        -- the share of the masks of its size that were measured
);

CREATE TABLE surrogate_tails (       -- sums over sets of all orders around measured masks; the terms include their coefficients of the terms' own sets
    run_id TEXT NOT NULL,
    query INTEGER,                   -- NULL: of the run's own value
    tail INTEGER NOT NULL,           -- from 0
    variance DOUBLE NOT NULL,
    reach DOUBLE NOT NULL,
    relevances DOUBLE[] NOT NULL,    -- of the components
    keep_probability DOUBLE NOT NULL,
    centres BLOB NOT NULL,           -- the packed bits of one mask after another, 1 = kept
    weights DOUBLE[] NOT NULL        -- of the centres
);
