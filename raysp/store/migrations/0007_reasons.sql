-- Why a run has its verdict, one row a reason: a code to match, the figures it rests on, and a sentence for people.

CREATE TABLE reasons (
    run_id TEXT NOT NULL,
    position INTEGER NOT NULL,   -- from 0, in the order in which they are shown
    code TEXT NOT NULL,          -- surrogate_good, interactions_no_gain, estimates_rough, cross_check, ...
    figures TEXT NOT NULL,       -- JSON object: the figures by name, as in figures->>'r2'
    sentence TEXT NOT NULL
);

-- Sentences of runs stored before get their code where it is certain.
INSERT INTO reasons
WITH sentences AS (
    SELECT run_id, unnest(reasons) AS sentence, generate_subscripts(reasons, 1) - 1 AS position FROM runs WHERE reasons IS NOT NULL
), checked AS (
    SELECT *, replace(regexp_extract(sentence, '^Cross-check: (.+?) (rank|ranks|cannot be compared with) ', 1), ' ', '_') AS method FROM sentences
)
SELECT run_id, position,
       CASE
           WHEN starts_with(sentence, 'The value does not change whatever is removed') THEN 'constant_value'
           WHEN starts_with(sentence, 'Every mask was measured') THEN 'complete'
           WHEN starts_with(sentence, 'Nothing was held out') THEN 'not_held_out'
           WHEN starts_with(sentence, 'The surrogate predicts well') THEN 'surrogate_good'
           WHEN starts_with(sentence, 'The surrogate predicts in part') THEN 'surrogate_partial'
           WHEN starts_with(sentence, 'The surrogate predicts badly') THEN 'surrogate_poor'
           WHEN starts_with(sentence, 'Interactions make the prediction worse') THEN 'interactions_harm'
           WHEN starts_with(sentence, 'Interactions do not help') THEN 'interactions_no_gain'
           WHEN starts_with(sentence, 'The estimates hold') THEN 'estimates_good'
           WHEN regexp_matches(sentence, '^The \d+ interactions checked are negligible') THEN 'estimates_negligible'
           WHEN starts_with(sentence, 'The estimates around the intact input are rough') THEN 'estimates_rough'
           WHEN starts_with(sentence, 'The estimates around the intact input are wrong') THEN 'estimates_wrong'
           WHEN starts_with(sentence, 'Low-impact components hold no strong pair') THEN 'low_impact_clear'
           WHEN starts_with(sentence, 'The assumption that strong interactions involve') THEN 'low_impact_missed'
           WHEN method <> '' THEN 'cross_check'
           WHEN starts_with(sentence, 'Cross-check: ') THEN 'cross_check_missing'
           ELSE 'unclassified'
       END,
       CASE WHEN method <> '' THEN to_json({'method': method})::TEXT ELSE '{}' END,
       sentence
FROM checked;

ALTER TABLE runs DROP COLUMN reasons;
