-- Parts of models as components, what gradients say beside exact ablations, and what pruning by a run's answer left.

ALTER TABLE components ADD COLUMN layer INTEGER;  -- where in a model a component is
ALTER TABLE components ADD COLUMN unit INTEGER;   -- the number of the head, or the first neuron

CREATE TABLE cross_checks (
    run_id TEXT NOT NULL,
    method TEXT NOT NULL,        -- gradient_x_input, integrated_gradients, attention_rollout, ...
    component INTEGER NOT NULL,
    label TEXT NOT NULL,
    value DOUBLE NOT NULL        -- an approximation of the single effect, or a score that should rank like it
);

CREATE TABLE prunings (
    run_id TEXT NOT NULL,
    keep DOUBLE NOT NULL,        -- the share of components kept
    kept INTEGER NOT NULL,       -- how many that are
    method TEXT NOT NULL,        -- how they were chosen: interactions, bettered, singles, singles_bettered, top_singles, best_of_n, intact
    train DOUBLE,                -- the value on the prompts that the choice was made by
    heldout DOUBLE,              -- and on others, with an interval
    lo DOUBLE,
    hi DOUBLE,
    prompts INTEGER,             -- those held out
    evaluations INTEGER,         -- exact ones that the choice was made by
    components INTEGER[],        -- those kept
    created TIMESTAMP NOT NULL
);
