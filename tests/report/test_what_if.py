"""What-if in the browser: the stored surrogate is evaluated there as the store evaluates it."""

import json

import data_pages
import model_pages
import numpy as np
import pages
import pyarrow as pa
import pytest
from reading import read

import raysp
from raysp.masks import pack
from raysp.report import packing
from raysp.report.page import write_report
from raysp.runs.prediction import predict_stored
from raysp.store import Store

RUNS = {
    "forty-words": pages.forty_words, "with-tails": pages.with_tails, "many-words": pages.many_words, "six-words": pages.six_words, "three-layers": model_pages.three_layers, "question-answers": data_pages.question_answers,
    "reviews": data_pages.reviews,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("what-if-pages")
    with Store.open(place / "s.duckdb") as store:
        for name, add in RUNS.items():
            write_report(store, add(store), place / f"{name}.html")
    certain = raysp.FunctionLens(lambda masks: np.full(len(masks), 3.0), n=16, name="always three")
    spec = raysp.RunSpec(lens=certain, explorer=raysp.ProxySPEX(budget=200), store=str(place / "s.duckdb"), local=True)
    raysp.run(spec, run_id="constant")
    with Store.read(place / "s.duckdb") as store:
        write_report(store, "constant", place / "constant.html")
    return place


LISTEN = "window.heard = []; document.addEventListener('whatif', ({ detail }) => heard.push(detail));"


def number(text):
    return float(text.replace("−", "-").replace(",", ""))


@pytest.mark.parametrize("name", RUNS)
def test_the_browser_predicts_what_the_store_predicts(folder, visit, name):
    page = visit(name)
    rng = np.random.default_rng(1)
    with Store.read(folder / "s.duckdb") as store:
        n = store.run_row(name)["n"]
        masks = np.concatenate([rng.random((8, n)) < share for share in (0.1, 0.5, 0.95)] + [np.ones((1, n), bool), np.zeros((1, n), bool)])
        points = store.surrogate(name).points
        masks = masks if points is None else np.concatenate([masks, points.masks])
        stored = predict_stored(store, name, masks)
    told = page.evaluate("all => all.map((removed) => raysp.whatIf.predict(removed))", [list(each.removed) for each in stored])
    assert [each["value"] for each in told] == pytest.approx([each.value for each in stored], rel=1e-6)
    for here, there in zip(told, stored, strict=True):
        assert [here["lo"], here["hi"]] == pytest.approx([there.lo, there.hi], rel=1e-6)
        assert (here["coverage"], here["compared"]) == (there.coverage, there.compared)
        assert here["caution"].startswith("Some subsets") == there.extrapolated


@pytest.mark.parametrize(("name", "part"), [("forty-words", "#text .c"), ("three-layers", ".cell"), ("question-answers", "#text .c")])
def test_components_are_switched_off_by_click_and_by_key_and_restored(folder, visit, name, part):
    page = visit(name)
    page.evaluate(LISTEN)
    parts = page.locator(part)
    parts.nth(1).click()
    assert page.locator(f"{part}.off").count() == 0  # only in the mode
    page.locator("[data-whatif-mode]").first.click()
    numbers = [int(parts.nth(i).get_attribute("data-i")) for i in (1, 2, 3)]
    parts.nth(1).click()
    parts.nth(2).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert page.locator(f"{part}.off").evaluate_all("all => all.map(e => Number(e.dataset.i))") == numbers
    with Store.read(folder / "s.duckdb") as store:
        mask = np.ones((1, store.run_row(name)["n"]), dtype=bool)
        mask[0, numbers] = False
        [stored] = predict_stored(store, name, mask)
        intact = store.run_row(name)["value_intact"]
    shown = page.locator("#whatif-value").text_content()
    assert number(shown) == pytest.approx(stored.value, abs=0.001)
    assert number(page.locator("#whatif-change").text_content()) == pytest.approx(stored.value - intact, abs=0.001)
    assert "95% interval" in page.locator("#whatif-interval").text_content()
    assert page.evaluate("heard.map(({ removed }) => removed.length)") == [1, 2, 3]
    heard = page.evaluate("heard[2]")
    assert heard.pop("removed") == sorted(numbers)
    assert heard == pytest.approx({"value": stored.value, "lo": stored.lo, "hi": stored.hi})
    assert page.locator("#whatif-gone button").count() == 3
    page.locator("#whatif-gone button").first.click()
    assert page.locator(f"{part}.off").count() == 2
    page.locator("#whatif-restore").click()
    assert page.locator(f"{part}.off").count() == page.locator("#whatif-gone button").count() == 0
    assert page.evaluate("heard.length") == 5


def test_a_removed_part_is_marked_in_the_graph_too(visit):
    page = visit("three-layers")
    index = page.evaluate("raysp.interactions.drawn()[0].components[0]")
    page.evaluate("removed => document.dispatchEvent(new CustomEvent('whatif-set', { detail: { removed } }))", [index])
    page.locator("#shown").fill("15")
    assert page.locator(f".node.off[data-i='{index}']").count() == 1


def test_a_run_whose_components_are_not_laid_out_has_them_in_a_list(visit):
    page = visit("reviews")
    assert page.locator("[data-whatif-mode]").count() == 0
    page.locator("#whatif-filter").fill("crime 49")
    page.locator("#whatif-list .vbody .vrow").click()
    assert page.locator("#whatif-gone").text_content().startswith("topic=crime 49")
    assert page.locator("#whatif-list .vbody .vrow[aria-selected=true]").count() == 1


def test_another_page_sets_what_is_removed_and_has_a_place_for_the_exact_value(visit):
    page = visit("six-words")
    page.evaluate(LISTEN)
    choose = "removed => document.dispatchEvent(new CustomEvent('whatif-set', { detail: { removed } }))"
    page.evaluate(choose, [4, 1, 4, 99])
    page.evaluate(choose, [1, 4])  # the same set: nothing has changed
    assert page.evaluate("heard.map(({ removed }) => removed)") == [[1, 4]]
    assert page.locator("#text .c.off").all_text_contents() == ["acting", "to"]
    assert page.locator("#whatif-exact").inner_html() == ""
    assert page.locator("#whatif-interval").text_content() == "measured"  # as all masks were


def test_a_prediction_that_is_certain_is_not_called_measured(visit):
    page = visit("constant")
    told = page.evaluate("raysp.whatIf.predict([2, 3, 5, 7, 11])")
    assert told["compared"] > 0
    assert told["lo"] == told["value"] == told["hi"]
    page.evaluate("document.dispatchEvent(new CustomEvent('whatif-set', { detail: { removed: [2, 3, 5, 7, 11] } }))")
    assert page.locator("#whatif-interval").text_content().endswith("(95% interval)")


def test_a_run_without_a_surrogate_has_no_such_section(tmp_path):
    game = pages.info(pages.words_of(pages.SHORT), pages.SHORT)
    with Store.open(tmp_path / "s.duckdb") as store:
        store.start_run("r", pages.spec(game), game, lens="feature", explorer="screen", seed=0)
        singles = pa.table({"component": pa.array(range(6), pa.int32()), "value": np.arange(6.0), "method": ["removed"] * 6})
        store.finish_run("r", "done", {"verdict": "reliable", "reasons": [], "metrics": {}}, singles=singles)
        page = write_report(store, "r", tmp_path / "r.html")
    assert "What if" not in read(page)


def test_a_prediction_does_not_depend_on_what_was_removed_before(folder, visit):
    page = visit("with-tails")
    with Store.read(folder / "s.duckdb") as store:
        surrogate = store.surrogate("with-tails")
        masks = np.random.default_rng(2).random((300, surrogate.n)) < 0.6
        masks[1::2] = masks[::2]
        masks[1::2, 3] ^= True  # one component more or less than the mask before
        expected = surrogate.predict(masks)
    told = page.evaluate("all => all.map((removed) => raysp.whatIf.predict(removed).value)", [np.flatnonzero(~mask).tolist() for mask in masks])
    np.testing.assert_allclose(told, expected, rtol=1e-9, atol=1e-9)


def test_masks_travel_as_bits_or_as_lists_whichever_is_shorter():
    rng = np.random.default_rng(0)
    halves, ablated = rng.random((50, 300)) < 0.5, ~np.eye(300, dtype=bool)
    assert list(packing.packed_masks(halves)["columns"]) == ["bits"]
    assert list(packing.packed_masks(ablated)["columns"]) == ["sizes", "removed"]
    assert len(json.dumps(packing.packed_masks(ablated))) < len(json.dumps(packing.packed(pack(ablated), "uint8"))) / 4


def test_tails_around_the_same_masks_hold_them_once(folder):
    with Store.read(folder / "s.duckdb") as store:
        held = packing.what_if(store, store.run_row("many-words"))
    assert [each["count"] for each in held["centres"]] == [60]
    assert [tail["centres"] for tail in held["tails"]] == [0, 0]
    assert list(held["points"]["columns"]) == ["sizes", "removed"]


def test_a_surrogate_of_too_many_measured_masks_is_left_out_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MOST_MASKS", 800)
    with Store.open(tmp_path / "s.duckdb") as store:
        page = write_report(store, pages.with_tails(store), tmp_path / "r.html")
    assert "and 205 measured masks, too many for this page to hold: raysp predict with-tails --removed LIST" in read(page)
    assert '"coefficients"' not in page.read_text(encoding="utf-8")


def test_a_surrogate_of_too_many_terms_is_left_out_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MOST_TERMS", 10)
    with Store.open(tmp_path / "s.duckdb") as store:
        page = write_report(store, pages.forty_words(store), tmp_path / "r.html")
    assert "terms, too many for this page to hold: raysp predict forty-words --removed LIST" in read(page)
    assert '"coefficients"' not in page.read_text(encoding="utf-8")
