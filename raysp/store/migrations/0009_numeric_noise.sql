-- How far rounding moves a game's values, measured once a game and P(keep): standard deviation of one value, the spread that it is compared with ("scale": of values
-- over random masks, or leave_one_out: of single effects), and their ratios. Keyed by fingerprint: a game that was rejected for its noise has no other row.
CREATE TABLE numeric_noise (
    fingerprint VARCHAR NOT NULL,
    keep_probability DOUBLE NOT NULL,
    dtype VARCHAR NOT NULL,
    noise DOUBLE NOT NULL,
    spread DOUBLE NOT NULL,
    share DOUBLE NOT NULL,
    query_share DOUBLE NOT NULL,
    scale VARCHAR NOT NULL,
    masks INTEGER NOT NULL,
    repeats INTEGER NOT NULL,
    reference BOOLEAN NOT NULL,
    measured TIMESTAMP NOT NULL,
    PRIMARY KEY (fingerprint, keep_probability)
);
