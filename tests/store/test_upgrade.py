"""A store of the version before opens, holds the same answers, and answers the queries that the documentation begins with."""

import re
from pathlib import Path

import pytest
import version_before
from test_schema import COLUMNS, columns

from raysp.store import Store

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "raysp" / "store" / "README.md", ROOT / "README.md")
"""Where the queries may stand; the first that has them counts."""


def documented_queries():
    """The statements of the first block of SQL in the documentation, without their comments."""
    for document in DOCUMENTS:
        blocks = re.findall(r"```sql\n(.*?)```", document.read_text(encoding="utf-8") if document.exists() else "", re.DOTALL)
        if blocks:
            text = re.sub(r"^--.*$", "", blocks[0], flags=re.MULTILINE)
            return [statement.strip() for statement in text.split(";") if statement.strip()]
    return []


QUERIES = documented_queries()


@pytest.fixture
def upgraded(tmp_path):
    version_before.write(tmp_path / "s.duckdb")
    with Store.open(tmp_path / "s.duckdb") as store:
        yield store


def test_a_store_of_the_version_before_gets_todays_schema(tmp_path):
    version_before.write(tmp_path / "s.duckdb")
    Store.open(tmp_path / "s.duckdb").close()
    assert columns(tmp_path / "s.duckdb") == COLUMNS


def test_ten_queries_are_documented():
    assert len(QUERIES) == 10


@pytest.mark.parametrize("query", QUERIES)
def test_a_store_of_the_version_before_answers_every_documented_query(upgraded, query):
    assert upgraded.sql(query).num_rows > 0


def test_values_are_renamed_and_keep_their_figures(upgraded):
    prunings = {row["method"]: row["heldout"] for row in upgraded.run_table("prunings", "run-1").to_pylist()}
    assert prunings == {"interactions": 0.5, "refined": 0.8, "singles": 0.4, "singles_refined": 0.6}
    scores = {row["metric"]: row["score"] for row in upgraded.run_table("data_scores", "run-2").to_pylist()}
    assert scores == {"lds": 0.6, "brittleness_drop": 1.25, "flip_rate": 0.5}


def test_columns_are_renamed_and_keep_their_values(upgraded):
    assert upgraded.run_table("selections", "run-2")["rule"].to_pylist() == ["drop harmful:5%"]
    assert upgraded.run_table("validations", "run-1").select(["joint_effect", "sum_of_effects"]).to_pylist() == [{"joint_effect": 9.0, "sum_of_effects": 5.0}]
    assert upgraded.sql("SELECT side, rank, label FROM helpful_examples").to_pylist() == [
        {"side": "helpful", "rank": 1, "label": "film"},
        {"side": "harmful", "rank": 1, "label": "never"},
    ]
    assert upgraded.sql("SELECT helpful, harmful FROM query_summary").to_pylist() == [{"helpful": "film", "harmful": "never"}]


def test_costs_are_what_they_were(upgraded):
    row = upgraded.sql("SELECT evaluations, reused, tokens, wall_seconds FROM run_costs WHERE phase = 'explore'").to_pylist()
    assert row == [{"evaluations": 9, "reused": 0, "tokens": 72, "wall_seconds": 3.0}]
