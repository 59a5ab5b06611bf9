"""What the terminal and the page show of values of any size."""

import pytest

import raysp
from raysp.commands import display
from raysp.commands.display import print_result
from raysp.report.page import write_report
from raysp.store import Store


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run whose values are of size 1e-6: two components that work together, and a weak one."""
    store = tmp_path_factory.mktemp("tiny") / "s.duckdb"
    lens = raysp.FunctionLens(lambda masks: 1e-6 * (3.0 * masks[:, 0] * masks[:, 1] + 0.25 * masks[:, 2]), n=4, labels=("one", "two", "weak", "none"))
    return store, raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), local=True, store=str(store)))


def test_tables_of_tiny_values_show_significant_digits_at_one_scale(tiny, capsys):
    print_result(tiny[1])
    shown = capsys.readouterr().out
    assert "value: intact +3.250, everything removed 0 (×10⁻⁶)" in shown
    alone, together = shown.partition("Interactions")[::2]
    assert "Single effects (strongest first), ×10⁻⁶" in alone
    assert "(significant first, then strongest given their intervals), ×10⁻⁶" in together
    lines = {line.split()[0]: line.split() for line in alone.splitlines() if line.split()}
    assert (lines["one"][1], lines["weak"][1], lines["none"][1]) == ("+3.000", "+0.250", "0")
    assert (lines["one"][2], lines["weak"][2], lines["none"][2]) == ("+1.500", "+0.250", "0")
    assert "+0.000" not in shown


def test_components_that_cover_for_each_other_come_first_as_the_average_sees_them(tmp_path, capsys):
    lens = raysp.FunctionLens(lambda masks: 3.0 * (masks[:, 0] | masks[:, 1]) + 1.0 * masks[:, 2], n=4, labels=("one", "other", "apart", "none"))
    result = raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), local=True, store=str(tmp_path / "s.duckdb")))
    print_result(result)
    shown = " ".join(capsys.readouterr().out.split())
    assert "component at this input on average one 0 +1.500 other 0 +1.500 apart +1.000 +1.000 none 0 0 At this input: the drop in the value" in shown
    assert "Components are ranked by the average" in shown


def test_one_reading_is_one_column(tmp_path, capsys):
    lens = raysp.FunctionLens(lambda masks: 3.0 * masks[:, 0] + 1.0 * masks[:, 2], n=40)
    result = raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Singles(budget=200), local=True, store=str(tmp_path / "s.duckdb")))
    print_result(result)
    shown = " ".join(capsys.readouterr().out.split())
    assert "at this input" not in shown
    assert "effect" in shown.partition("Single effects")[2]
    assert " lasso" in shown


def test_the_fit_around_the_input_is_beside_that_over_contexts():
    row = {"r2": 0.913, "r2_singles": 0.5, "lens": "mechanistic", "metrics": {"r2_near": 0.871, "r2_near_singles": 0.4}, "game": {"description": {}}}
    assert display.fit_text(row) == "R² 0.91 (single effects alone 0.50) · around the intact model: R² 0.87 (adding up single effects 0.40)"
    assert display.fit_text(row | {"metrics": None}) == "R² 0.91 (single effects alone 0.50)"


def test_the_page_of_tiny_values_shows_them(tiny, tmp_path):
    store, result = tiny
    with Store.read(store) as reading:
        page = write_report(reading, result.run_id, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "+3.25×10⁻⁶" in page
    assert "+3.00×10⁻⁶" in page


def test_labels_and_names_cannot_command_the_terminal(tmp_path, cli):
    lens = raysp.FunctionLens(lambda masks: 1.0 * masks[:, 0] * masks[:, 1], n=2, labels=("\x1b[31mred\x1b]0;title\x07", "\x9b2J:cat:"))
    store = str(tmp_path / "s.duckdb")
    raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), local=True, store=store, name="a\x1b[2J"))
    commands = (("runs",), ("show", "last"), ("sql", "FROM components"), ("show", "\x1b[2J"), ("sql", "SELECT '\x1b[2J'"))
    for command in commands:
        ended = cli(*command, "--store", store)
        assert not set(ended.out + ended.err) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}, command
    shown = cli("show", "last", "--store", store).out
    assert "\\x1b[31mred\\x1b]0;title\\x07" in shown
    assert "\\x9b2J:cat:" in shown
