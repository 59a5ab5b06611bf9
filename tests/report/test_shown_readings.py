"""Single effects at the intact input and on average over contexts: side by side where both are known, and ranked by the average."""

import json
import re

import model_pages
import pages
import pyarrow as pa
import pytest
from reading import read

from raysp.report import readings, words
from raysp.report.page import write_report
from raysp.runs.result import read_result
from raysp.runs.singles import averaged, ranked
from raysp.store import Store

RUNS = {"six-words": pages.six_words, "function": pages.function, "three-layers": model_pages.three_layers, "forty-words": pages.forty_words}
FEATURE = {"lens": "feature", "game": {"description": {"ablation": "remove"}}}


def row(component, value, method="removed", average=None, width=0.1):
    mean = {"average": average, "average_lo": None if average is None else average - width, "average_hi": None if average is None else average + width}
    return {"component": component, "label": f"w{component}", "value": value, "lo": value, "hi": value, "method": method, **mean}


def test_components_are_ranked_by_the_mean_effect_which_sees_what_others_cover_for():
    covered = [row(0, 4.9, average=3.0), row(1, 0.0, average=6.0), row(2, -1.0, average=-0.5)]
    assert [single.component for single in ranked(covered)] == [1, 0, 2]
    assert [single.component for single in ranked([each | {"average": None} for each in covered])] == [0, 2, 1]


def test_cells_show_both_readings_and_the_interval_of_the_average():
    found = ranked([row(0, 4.9, average=3.0), row(1, 0.02, average=6.0)])
    assert readings.columns(found, "at this input") == ["at this input", "on average", "95% interval"]
    assert readings.cells(found) == [["+0.020", "+6.000", "[+5.900, +6.100]"], ["+4.900", "+3.000", "[+2.900, +3.100]"]]


@pytest.mark.parametrize("only", [row(0, 2.5, "surrogate", average=2.5), row(0, 2.5, "surrogate"), row(0, 2.5, "lasso", average=2.5), row(0, 2.5)])
def test_one_reading_is_shown_where_only_one_is_known(only):
    found = ranked([only | {"lo": 2.4, "hi": 2.6}])
    assert readings.columns(found, "at this input") == ["effect", "95% interval"]
    assert readings.cells(found) == [["+2.500", "[+2.400, +2.600]"]]
    assert averaged(found) == (only["method"] != "removed")
    assert "Components are ranked" not in words.readings_of(FEATURE, found)
    assert ("mean drop" in words.readings_of(FEATURE, found)) == averaged(found)


def test_what_the_readings_are_is_said_in_a_sentence_each():
    told = words.readings_of(FEATURE, ranked([row(0, 1.0, average=2.0)]))
    assert told == (
        "At this input: the drop in the value when one component is left out of the prompt and all others are kept, measured by exact ablation. "
        "On average: the mean drop in the value when one component is left out of the prompt, over contexts in which others are too, estimated by the surrogate. "
        "Components are ranked by the average, because one that others cover for looks weak at this input; one that works only together with others "
        "may look weak on average."
    )


def test_interactions_help_where_they_help_in_either_reading():
    run = FEATURE | {"r2": 0.9, "r2_singles": 0.9, "metrics": {}}
    assert words.help_of_interactions(run).startswith("Interactions do not help here")
    assert words.help_of_interactions(run | {"metrics": {"r2_near": 0.7, "r2_near_singles": 0.7}}).startswith("Interactions do not help here")
    assert "Around this input they do (R² 0.20 adding up" in words.help_of_interactions(run | {"metrics": {"r2_near": 0.7, "r2_near_singles": 0.2}})
    assert words.near(run) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("readings-pages")
    with Store.open(place / "s.duckdb") as store:
        for name, add in RUNS.items():
            write_report(store, add(store), place / f"{name}.html")
    return place


def stored(folder, name):
    with Store.read(folder / "s.duckdb") as store:
        return ranked(store.run_table("singles", name).to_pylist())


@pytest.mark.parametrize(("name", "part", "place"), [("six-words", "#text .c", "at this input"), ("three-layers", ".cell", "in the intact model")])
def test_words_and_cells_are_shaded_by_the_average_and_tell_both(folder, visit, name, part, place):
    page = visit(name)
    strongest = stored(folder, name)[0]
    assert abs(strongest.intact) < 0.05 * abs(strongest.average)
    cell = page.locator(f"{part}[data-i='{strongest.component}']")
    assert cell.get_attribute("data-s") == "20"
    assert "pos" in cell.get_attribute("class")
    cell.hover()
    tip = page.locator(".tip").text_content()
    assert re.search(rf": \+[\d.]+ on average, .*{place}$", tip)
    assert "on average over contexts" in page.locator("main").text_content()


def test_the_strongest_component_that_is_named_is_that_of_the_ranking(folder):
    strongest = stored(folder, "six-words")[0]
    assert f"The largest single effect on average is that of “{strongest.label}” (+" in read(folder / "six-words.html")
    assert "at this input)." in read(folder / "six-words.html")
    assert f"The largest single effect is that of “{stored(folder, 'function')[0].label}” (" in read(folder / "function.html")


def test_the_chart_has_a_bar_for_the_average_and_a_mark_at_the_input(folder, visit):
    page = visit("six-words")
    chart = page.locator("[data-chart=singles]")
    assert chart.locator(".key-name").all_text_contents() == ["on average", "at this input"]
    assert chart.locator("rect.bar").count() == 6
    marks = chart.locator("svg.plot > path.mark").get_attribute("d").count("z")
    assert marks == 6
    assert visit("function").locator("[data-chart=singles] .key-name").count() == 0


@pytest.mark.parametrize(("name", "titles"), [("six-words", ["component", "at this input", "on average"]), ("function", ["component", "effect"])])
def test_the_table_has_a_column_for_each_reading_that_is_known(folder, visit, name, titles):
    page = visit(name, 360)
    page.locator("details.numbers summary").click()
    assert page.locator(".singles th").all_text_contents() == titles
    assert page.locator(".singles tbody tr").count() == min(25, len(stored(folder, name)))
    assert page.locator(".singles small").count() == (6 if name == "six-words" else 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("[...document.querySelectorAll('.scroll:has(.singles)')].every(e => e.scrollWidth <= e.clientWidth)")


def test_the_list_of_all_components_has_both_readings(visit):
    page = visit("forty-words")
    page.locator("#whatif details summary").click()
    assert page.locator("#whatif-list [role=columnheader]").all_text_contents() == ["#", "component", "at this input", "on average", "state"]
    assert page.locator("#whatif-list .vbody .vrow").first.locator("[role=gridcell]").count() == 5


def test_the_fit_around_the_input_is_beside_that_over_contexts(folder):
    text = read(folder / "six-words.html")
    assert (
        "R² around this input 0.88 0.84 to 0.91 adding up single effects there 0.60 Around this input: on 64 held-out ablations of two to five components."
        in text
    )
    assert "R² around the intact model" not in read(folder / "three-layers.html")  # it was not scored there
    assert "adding up single effects there" not in read(folder / "function.html")


def test_a_notebook_shows_both_readings_and_both_fits(folder):
    with Store.read(folder / "s.duckdb") as store:
        html, other = (read_result(store, name)._repr_html_() for name in ("six-words", "function"))
    assert "around this input: R² 0.88 (adding up single effects 0.60)" in html
    [table] = re.findall(r'<table class="raysp-singles">.*?</table>', html, flags=re.DOTALL)
    assert re.findall(r"<th[^>]*>(.*?)</th>", table)[1:] == ["at this input", "on average", "95% interval"]
    assert re.search(r"<tr><td>(.*?)</td>", table)[1] == stored(folder, "six-words")[0].label
    assert "on average" not in other


def test_a_run_without_measured_single_effects_shows_its_averages(tmp_path):
    game = pages.info(pages.words_of(pages.SHORT), pages.SHORT)
    with Store.open(tmp_path / "s.duckdb") as store:
        store.start_run("r", json.dumps({"lens": {"kind": "feature"}, "explorer": {"kind": "singles"}}), game, lens="feature", explorer="singles", seed=0)
        rows = [row(i, float(i), "lasso", float(i)) for i in range(6)]
        table = pa.Table.from_pylist(rows).drop_columns(["label"]).set_column(0, "component", pa.array(range(6), pa.int32()))
        store.finish_run("r", "done", {"verdict": "reliable", "reasons": [], "metrics": {}}, singles=table)
        text = read(write_report(store, "r", tmp_path / "r.html"))
    assert "The mean drop in the value when one component is left out of the prompt, over contexts in which others are too, estimated by a LASSO" in text
    assert "at this input" not in text
