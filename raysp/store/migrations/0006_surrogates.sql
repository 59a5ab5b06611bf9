-- The surrogate of a run and, for a training set, of each of its queries: v(m) = sum over terms of coefficient · φ_S(m),
-- with φ_S(m) the product over i in S of (p - m_i) / sqrt(p (1 - p)), p = basis. At p = 1/2 that is (-1)^(kept components of S).

CREATE TABLE surrogates (
    run_id TEXT NOT NULL,
    query INTEGER,                   -- NULL: of the run's own value
    terms INTEGER NOT NULL,
    max_order INTEGER NOT NULL,
    basis DOUBLE NOT NULL,           -- P(keep) of the terms' basis: that of the masks fitted to
    keep_probability DOUBLE NOT NULL -- of the masks on which it should predict well, and is scored
);

CREATE TABLE surrogate_terms (
    run_id TEXT NOT NULL,
    query INTEGER,
    term INTEGER NOT NULL,           -- from 0, by order, then by components
    components INTEGER[] NOT NULL,
    set_order INTEGER NOT NULL,
    coefficient DOUBLE NOT NULL,
    standard_error DOUBLE,           -- NULL: the coefficient is exact
    factor DOUBLE[]                  -- row of L where the coefficients have a covariance L Lᵀ; NULL: they are independent
);

CREATE TABLE fitted_evaluations (    -- those of a run's evaluations that its surrogate was fitted to
    run_id TEXT NOT NULL,
    position INTEGER NOT NULL,       -- in the order in which the explorer was told them
    evaluation_id BIGINT NOT NULL
);
