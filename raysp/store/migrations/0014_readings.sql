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
