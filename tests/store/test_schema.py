"""Migrations are append-only, applied once, and what they make is pinned here: a change of these lists needs a migration."""

import duckdb
import pytest
from stores import begin

from raysp.errors import UserError
from raysp.game import Component
from raysp.store import Store, schema
from raysp.validation import REASON_CODES

COLUMNS = {
    "batches": "batch_id game_id run_id phase round evaluations tokens seconds created with_slopes",
    "blobs": "hash content",
    "components": "game_id component label kind start stop size layer unit",
    "cross_checks": "run_id method component label value",
    "data_scores": "run_id method metric score lo hi query k queries subsets seeds fraction note created",
    "evaluations": "evaluation_id game_id mask value run_id phase round position tokens seconds created",
    "events": "time run_id kind message",
    "examples": "game_id example component prompt completion",
    "games": "game_id fingerprint n description source notes slope_price",
    "gradient_effects": "game_id method signed query effects",
    "gradient_pairs": "game_id components deviation",
    "gradient_reports": "game_id leading_method intact priors max_order pair_singles notes seconds created",
    "heldout": "run_id mask predicted predicted_singles exact",
    "interactions": "run_id rank components labels set_order index value lo hi significant kind estimate exact verified estimate_lo estimate_hi",
    "measurements": "evaluation_id batch_id mask value position",
    "migrations": "number name applied",
    "numeric_noise": "fingerprint keep_probability dtype noise spread share query_share scale masks repeats reference measured",
    "outputs": "evaluation_id outputs",
    "prunings": "run_id keep kept method train heldout lo hi prompts evaluations components created",
    "queries": "game_id query label prompt target foil",
    "query_heldout": "run_id query mask predicted predicted_singles exact",
    "query_interactions": "run_id query rank components labels set_order index value lo hi significant kind estimate exact verified estimate_lo estimate_hi",
    "query_scores": "run_id query label value_intact value_empty r2 r2_lo r2_hi r2_singles lds lds_singles",
    "query_singles": "run_id query component label value lo hi method average average_lo average_hi",
    "reasons": "run_id position code figures sentence",
    "reuses": "run_id phase round position evaluation_id",
    "runs": "run_id name set_name status lens explorer model dtype game_id n seed spec version started finished value_intact value_empty index"
    " r2 r2_lo r2_hi r2_singles verdict metrics notes diagnostics error submitted desired priority progress",
    "selections": "run_id rule dropped kept components heldout_before heldout_after difference lo hi seeds note created",
    "singles": "run_id component label value lo hi method average average_lo average_hi",
    "extra_costs": "run_id phase evaluations tokens seconds wall_seconds with_slopes",
    "slopes": "evaluation_id slopes",
    "surrogates": "run_id query terms max_order basis keep_probability",
    "surrogate_points": "run_id query point mask residual held_out inclusion",
    "surrogate_tails": "run_id query tail variance reach relevances keep_probability centres weights",
    "surrogate_terms": "run_id query term components set_order coefficient standard_error factor",
    "fitted_evaluations": "run_id position evaluation_id",
    "validations": "run_id role components labels set_order estimate exact error joint_effect sum_of_effects kind",
    "costs": "run_id phase evaluations reused with_slopes tokens seconds wall_seconds",
    "helpful_examples": "run_id name query query_label side rank component label value lo hi method examples example prompt completion",
    "query_summary": "run_id name query label prompt target foil value_intact value_empty r2 r2_lo r2_hi r2_singles lds lds_singles"
    " helpful harmful interactions verified strongest strongest_kind",
    "requests": "run_id phase round position evaluation_id reused",
    "run_costs": "run_id name phase evaluations reused with_slopes tokens seconds wall_seconds evaluations_per_second",
    "run_summary": "run_id name set_name status lens explorer model dtype n seed value_intact value_empty r2 r2_singles verdict"
    " evaluations reused tokens seconds interactions verified strongest started finished error",
    "top_interactions": "run_id name rank labels set_order kind index value lo hi significant estimate exact verified components",
}


def columns(path):
    with duckdb.connect(str(path), read_only=True) as con:
        rows = con.execute(
            "SELECT table_name, string_agg(column_name, ' ' ORDER BY column_index) FROM duckdb_columns() WHERE NOT internal GROUP BY ALL"
        ).fetchall()
    return dict(rows)


def test_a_new_store_has_the_pinned_columns(tmp_path):
    Store.open(tmp_path / "s.duckdb").close()
    assert columns(tmp_path / "s.duckdb") == COLUMNS


def test_no_column_needs_quotes(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        for table, names in COLUMNS.items():
            store.sql(f"SELECT {', '.join(names.split())} FROM {table} ORDER BY {', '.join(names.split())}")


def test_an_old_store_is_upgraded_and_keeps_its_rows(tmp_path):
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        assert schema.migrate(con, path, upto=1) == ["tables"]
        con.execute("INSERT INTO events VALUES (TIMESTAMP '2026-01-01', 'r', 'note', 'kept')")
        con.execute("INSERT INTO components VALUES (1, 0, 'never', 'word', 0, 5, 1)")
    with Store.open(path) as store:
        assert store.sql("SELECT message FROM events").to_pylist() == [{"message": "kept"}]
        assert store.components(1) == (Component(0, "never", "word", 0, 5, 1),)
        assert store.sql("SELECT number FROM migrations ORDER BY number")["number"].to_pylist() == [number for number, _, _ in schema.migrations()]
    assert columns(path) == COLUMNS


def test_sentences_of_an_old_store_become_reasons_with_codes(tmp_path):
    path = tmp_path / "old.duckdb"
    sentences = {
        "The surrogate predicts well: held-out R² 0.91 on 200 fresh masks.": ("surrogate_good", {}),
        "Interactions do not help: single effects alone predict as well (gain in R² +0.001).": ("interactions_no_gain", {}),
        "The 4 interactions checked are negligible, and estimated so: exact values average 0.1.": ("estimates_negligible", {}),
        "Cross-check: gradient x input ranks single effects with correlation +0.93 (top 5: 4 shared).": ("cross_check", {"method": "gradient_x_input"}),
        "Cross-check: attention rollout is left out: this model shows no attentions.": ("cross_check_missing", {}),
        "A sentence that no version writes.": ("unclassified", {}),
    }
    with duckdb.connect(str(path)) as con:
        schema.migrate(con, path, upto=4)
        columns = "run_id, status, lens, explorer, game_id, n, seed, spec, version, started, reasons"
        con.execute(f"INSERT INTO runs ({columns}) VALUES ('r', 'done', 'feature', 'screen', 1, 2, 0, '{{}}', '0', TIMESTAMP '2026-01-01', ?)", [[*sentences]])
        con.execute("INSERT INTO games VALUES (1, 'f', 2, '{}', NULL, NULL)")
    with Store.open(path) as store:
        reasons = store.run_row("r")["reasons"]
    assert [reason["sentence"] for reason in reasons] == list(sentences)
    assert [(reason["code"], reason["figures"]) for reason in reasons] == list(sentences.values())
    assert {reason["code"] for reason in reasons} <= set(REASON_CODES)


def test_an_old_store_is_upgraded_when_it_is_only_read(tmp_path):
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        schema.migrate(con, path, upto=1)
    with Store.read(path) as store:
        assert store.runs().num_rows == 0


def test_migrations_are_applied_once(tmp_path):
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        begin(store)
    with Store.open(path) as store:
        assert store.find_run("last") == "run-1"
    with duckdb.connect(str(path)) as con:
        assert schema.migrate(con, path) == []


def test_a_migration_that_was_added_with_a_lower_number_is_applied_too(tmp_path, monkeypatch):
    """Two branches may add migrations at the same time, and a store may have seen only the one with the higher number."""
    path, known = tmp_path / "s.duckdb", schema.migrations()
    after = known[-1][0] + 2
    later, earlier = (after, "later", "CREATE TABLE later (a INTEGER)"), (after - 1, "earlier", "CREATE TABLE earlier (a INTEGER)")
    monkeypatch.setattr(schema, "migrations", lambda: [*known, later])
    Store.open(path).close()
    monkeypatch.setattr(schema, "migrations", lambda: [*known, earlier, later])
    with Store.read(path) as store:  # which upgrades it
        assert store.sql("FROM earlier UNION ALL FROM later").num_rows == 0
        assert store.sql("SELECT number, name FROM migrations ORDER BY number").to_pylist()[-2:] == [
            {"number": number, "name": name} for number, name, _ in (earlier, later)
        ]
    with duckdb.connect(str(path)) as con:
        assert schema.migrate(con, path) == []


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "s.duckdb"
    good = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: [*good, (good[-1][0] + 1, "broken", "CREATE TABLE half (a INT); CREATE TABLE half (b INT)")])
    with pytest.raises(UserError, match="half"):
        Store.open(path)
    monkeypatch.undo()
    with Store.open(path) as store:
        assert store.sql("FROM duckdb_tables() WHERE table_name = 'half'").num_rows == 0


@pytest.mark.parametrize("way", [Store.open, Store.read])
def test_a_newer_schema_is_refused(tmp_path, way):
    path = tmp_path / "s.duckdb"
    Store.open(path).close()
    with duckdb.connect(str(path)) as con:
        con.execute("INSERT INTO migrations VALUES (99, 'future', TIMESTAMP '2030-01-01')")
    with pytest.raises(UserError, match=r"has schema 99, but this version of raysp supports at most \d+; upgrade raysp"):
        way(path)
