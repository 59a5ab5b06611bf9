-- What a model's gradients say about a game's components, computed once a game.

CREATE TABLE gradient_reports (
    game_id INTEGER NOT NULL,
    leading_method TEXT,         -- the method that estimates of masks are built on
    intact DOUBLE,               -- the value that goes with it, nothing removed
    priors TEXT[],               -- methods that fits are told about
    max_order INTEGER NOT NULL,  -- the order up to which the report is complete
    pair_singles DOUBLE[],       -- single effects that go with gradient_pairs; singles[component + 1] in SQL
    notes TEXT[],
    seconds DOUBLE NOT NULL,
    created TIMESTAMP NOT NULL
);

CREATE TABLE gradient_effects (
    game_id INTEGER NOT NULL,
    method TEXT NOT NULL,        -- influence, tracin, attribution_patching, integrated_gradients, ...
    signed BOOLEAN NOT NULL,     -- false: how much a component matters, but not in which direction
    query INTEGER NOT NULL,      -- 0 for a game without queries
    effects DOUBLE[] NOT NULL    -- one a component, about v(all) - v(all without it): effects[component + 1] in SQL
);

CREATE TABLE gradient_pairs (
    game_id INTEGER NOT NULL,
    components INTEGER[] NOT NULL,
    deviation DOUBLE NOT NULL    -- from additivity, around the intact input
);
