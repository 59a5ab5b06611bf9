"""What the terminal and the page show of values of any size."""

import pytest

import raysp
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
    assert "(significant first, then strongest), ×10⁻⁶" in together
    lines = {line.split()[0]: line.split() for line in alone.splitlines() if line.split()}
    assert (lines["one"][1], lines["weak"][1], lines["none"][1]) == ("+3.000", "+0.250", "0")
    assert "+0.000" not in shown


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
