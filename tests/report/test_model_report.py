"""The page of a run about parts of a model: heat map, graph, pruning, other methods."""

import model_pages
import numpy as np
import pages
import pyarrow as pa
import pytest
from reading import read

from raysp.game import Component
from raysp.report import agreement, energy, grid, pruning, words
from raysp.report.layout import Effects
from raysp.report.page import write_report, write_set_report
from raysp.store import Store

MODELS = [name for name in model_pages.RUNS if name != "checked-words"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every page, written once."""
    place = tmp_path_factory.mktemp("model-pages")
    with Store.open(place / "s.duckdb") as store:
        for name, add in model_pages.RUNS.items():
            write_report(store, add(store), place / f"{name}.html")
        write_set_report(store, ["three-layers", "thirty-layers"], place / "set.html")
        unfinished = model_pages.info(model_pages.heads([3, 4]), prompts=[{"prompt": "</pre><img src=x>{{ 7*7 }}", "target": "<b>", "foil": None}], task=None)
        store.start_run("unfinished", model_pages.spec(unfinished), unfinished, lens="mechanistic", explorer="screen", seed=0)
        write_report(store, "unfinished", place / "unfinished.html")
        unplaced = model_pages.info([("part one", "head", None, None), ("part two", "head", None, None)])
        store.start_run("unplaced", model_pages.spec(unplaced), unplaced, lens="mechanistic", explorer="screen", seed=0)
        write_report(store, "unplaced", place / "unplaced.html")
    return place


@pytest.mark.parametrize(("width", "scheme"), [(390, "light")])  # the narrow one is where things are cut off
@pytest.mark.parametrize("name", [*model_pages.RUNS, "set", "unfinished", "unplaced"])
def test_opens_offline_without_complaint_and_nothing_is_cut_off(visit, name, width, scheme):
    page = visit(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = """[...document.querySelectorAll('h1, h2, p, figcaption, .legend, .control, .chip, .node, #arcs text, .energy, .kept svg')]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < 0).map(e => e.outerHTML)"""
    assert page.evaluate(cut) == []
    scrolled = "[...document.querySelectorAll('.scroll:has(.methods)')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)"
    assert page.evaluate(scrolled) == []


@pytest.mark.parametrize("width", [390])
@pytest.mark.parametrize("name", MODELS)
def test_no_part_of_the_graph_lies_on_another(visit, name, width):
    page = visit(name, width)
    page.locator("#shown").fill("20")
    touching = """(what) => {
        const boxes = [...document.querySelectorAll(what)].map(e => [e.textContent, e.getBoundingClientRect()]);
        return boxes.flatMap(([one, a], i) => boxes.slice(i + 1)
            .filter(([, b]) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom).map(([other]) => [one, other]));
    }"""
    assert page.evaluate(touching, ".node rect") == []
    assert page.evaluate(touching, "#arcs .axis") == []
    assert page.evaluate(touching, ".heat th span") == []


def test_the_heat_map_has_a_cell_for_each_component_and_none_for_others(visit):
    page = visit("mixed")
    cells = page.locator(".cell")
    assert cells.count() == 6 * 9 + 6 + 3 + 3 * 16
    assert len(set(page.evaluate("[...document.querySelectorAll('.cell')].map(e => e.dataset.i)"))) == cells.count()
    rows = page.locator(".heat").first.locator("tbody tr")
    assert rows.locator("th").all_text_contents() == ["L25", "L24", "L23", "L22", "L21", "L20"]
    assert rows.nth(0).locator(".cell").count() == 11
    assert rows.nth(5).locator(".cell").count() == 10  # its block is no component


def test_neighbouring_neurons_share_a_cell_that_shows_the_strongest(visit):
    page = visit("many-neurons")
    assert page.locator(".cell").count() == 2 * 86
    assert "share a cell" in page.locator("#model").text_content()


def test_a_cell_says_what_it_is_and_how_strong(visit):
    page = visit("three-layers")
    cell = page.locator(".cell[aria-label^='L14H8:']")
    cell.hover()
    tip = page.locator(".tip")
    assert tip.is_visible()
    assert tip.text_content() == cell.get_attribute("aria-label")
    assert cell.text_content() in tip.text_content()
    page.locator("h1").hover()
    assert not tip.is_visible()


def test_the_colours_are_those_of_the_scheme(visit):
    seen = {
        visit("three-layers", scheme=scheme).locator(".cell.pos").first.evaluate("e => getComputedStyle(e).backgroundColor") for scheme in ("light", "dark")
    }
    assert len(seen) == 2


@pytest.mark.parametrize(("name", "drawn"), [("three-layers", 12), ("thirty-layers", 12)])
def test_one_line_an_interaction_between_its_members(visit, name, drawn):
    page = visit(name)
    assert page.locator("#arcs .arc").count() == drawn
    stray = """() => {
        const centre = (e) => { const box = e.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; };
        const origin = document.getElementById('arcs').getBoundingClientRect();
        return raysp.interactions.drawn().filter((arc) => {
            const wires = document.querySelector(`.arc[data-rank='${arc.rank}'] .wire`).getAttribute('d').split('M').slice(1);
            const ends = wires.flatMap((d) => { const n = d.match(/-?[0-9.]+/g).map(Number); return [n.slice(0, 2), n.slice(-2)]; });
            return !arc.components.every((i) => {
                const [x, y] = centre(document.querySelector(`.node[data-i='${i}'] rect`));
                return ends.some((end) => Math.abs(end[0] + origin.left - x) < 1 && Math.abs(end[1] + origin.top - y) < 1);
            });
        }).length;
    }"""
    assert page.evaluate(stray) == 0


def test_deeper_layers_are_higher_and_heads_of_a_layer_side_by_side(visit):
    page = visit("three-layers")
    # In one call: a graph that is drawn anew in between would leave places of parts that are gone.
    nodes, cells = page.evaluate(
        """() => {
            const middle = e => { const box = e.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; };
            const places = (parts, name, shape) => Object.fromEntries(
                [...document.querySelectorAll(parts)].map(e => [e.getAttribute(name).split(":")[0], middle(shape ? e.querySelector(shape) : e)]));
            return [places(".node", "data-tip", "rect"), places(".cell", "aria-label", null)];
        }"""
    )
    assert len({round(y) for label, (_, y) in nodes.items() if label.startswith("L13")}) == 1
    assert min(y for label, (_, y) in nodes.items() if label.startswith("L12")) > max(y for label, (_, y) in nodes.items() if label.startswith("L14"))
    assert max(abs(x - cells[label][0]) for label, (x, _) in nodes.items()) < 1  # its columns are those of the heat map


def test_lines_within_a_layer_are_bent_and_run_over_no_other_part(visit):
    page = visit("blocks")
    straight = "[...document.querySelectorAll('.arc .wire')].filter(e => e.getBBox().width < 1).length"
    assert page.evaluate("raysp.interactions.drawn().filter(arc => arc.components.length === 2).length") > 4
    assert page.evaluate(straight) == 0
    page = visit("one-layer")
    assert page.evaluate("[...document.querySelectorAll('.arc .wire')].every(e => e.getBBox().height > 4)")


def test_the_slider_and_the_window_redraw_the_graph(visit):
    page = visit("thirty-layers")
    page.locator("#shown").fill("3")
    assert page.locator("#arcs .arc").count() == 3
    assert page.locator("#shown-count").text_content() == "3"
    members = page.evaluate("new Set(raysp.interactions.drawn().flatMap(arc => arc.components)).size")
    assert page.locator(".node").count() == members
    before = page.locator("#arcs .arc[data-rank='1'] .wire").get_attribute("d")
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_function("before => document.querySelector(\"#arcs .arc[data-rank='1'] .wire\").getAttribute('d') !== before", arg=before)


def test_a_row_of_the_table_lights_its_members_in_both_pictures(visit):
    page = visit("three-layers")
    page.locator("tr[data-rank='3']").first.hover()
    assert page.locator("#arcs .arc.on").count() == 1
    labels = page.locator("tr[data-rank='3'] .chip").all_text_contents()
    for lit in (".cell.on", ".node.on"):
        assert sorted(tip.split(":")[0] for tip in page.locator(lit).evaluate_all("all => all.map(e => e.dataset.tip || e.ariaLabel)")) == sorted(labels)


def test_a_node_lights_the_interactions_it_takes_part_in(visit):
    page = visit("three-layers")
    index = page.evaluate("raysp.interactions.drawn()[0].components[0]")
    page.locator(f".node[data-i='{index}']").hover()
    assert page.locator("#arcs .arc.on").count() == page.evaluate(f"raysp.interactions.drawn().filter(arc => arc.components.includes({index})).length")


def test_printing_fits_the_paper(visit):
    page = visit("three-layers", scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.getElementById('model').clientWidth") <= 680
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_the_question_the_value_and_the_ablation_are_in_words(folder):
    text = read(folder / "three-layers.html")
    for part in (
        "Which attention heads of smollm2-135m solve the task indirect object identification (ioi)?", "27 attention heads in layers 12 to 14 of 30",
        "replaced by its mean over reference prompts, at all positions", "means over 24 prompts", "all 27 ablated", "intact model",
    ):  # fmt: skip
        assert part in text
    assert "Which components of smollm2-135m make it say “Tokyo” rather than “Rome”?" in read(folder / "mixed.html")
    assert "matter for its answers to 2 prompts" in read(folder / "many-neurons.html")
    assert "KL divergence from the intact model (nats)" in read(folder / "many-neurons.html")
    assert "at positions 4, 5" in read(folder / "many-neurons.html")


def test_sets_are_shown_with_the_layers_they_span(folder):
    text = read(folder / "three-layers.html")
    assert "L13H6 × L14H3 across layers 13, 14" in text
    assert "within layer 12" in text
    assert "L13H6 × L14H3 is the strongest interaction, a redundancy" in text


def test_the_energy_split_is_a_sentence_and_bars(folder):
    text = read(folder / "three-layers.html")
    assert "52% is due to single components, 21% to interactions within a layer and 27% to interactions across layers" in text
    assert "layer 14 layer 13 layer 12" in text
    assert "Of the variance" not in read(folder / "mixed.html")


def test_pruning_has_curves_a_table_and_what_stays(folder, visit):
    text = read(folder / "three-layers.html")
    for part in ("How much can be pruned?", "on 60 held-out prompts", "The intact model’s value is 2.31 (2.10 to 2.50)", "80% 22 of 27", "10% · 3"):
        assert part in text
    page = visit("three-layers")
    assert page.locator("[data-chart=prunings] .key-name").all_text_contents() == [*pruning.METHODS.values(), "intact model"]
    assert page.locator(".kept figure").first.locator("rect.stays").count() == 22
    assert page.locator(".kept figure").first.locator("rect").count() == 27
    assert "How much can be pruned?" not in read(folder / "mixed.html")


def test_other_methods_have_their_agreement_in_words_once(folder, visit):
    text = read(folder / "three-layers.html")
    assert "attribution patching 0.82 76% agrees closely" in text
    assert "gradient × input 0.27 56% agrees weakly" in text
    assert "Cross-check:" not in text
    assert "Other methods" not in read(folder / "blocks.html")
    assert "attention rollout 0.27 56% agrees weakly" in read(folder / "checked-words.html")
    page = visit("checked-words")
    assert page.locator("[data-chart=attention_rollout] .title.middle").text_content() == "absolute single effect"


def test_three_prompts_stand_for_all(folder):
    text = read(folder / "three-layers.html")
    assert "The prompts: 24, the first 3 shown" in text
    assert text.count("gave a") == 3
    assert "target “Mary” foil “John”" in text


def test_hostile_prompts_are_text(visit):
    page = visit("unfinished")
    assert page.locator("main img, main h1 b").count() == 0
    assert "</pre><img src=x>{{ 7*7 }}" in page.locator(".appendix").text_content()
    assert page.locator(".cell").count() == 18


def test_parts_without_a_place_are_listed_as_text(folder):
    assert "Effects in the text" in read(folder / "unplaced.html")


def test_a_set_page_asks_the_question_of_its_runs(folder):
    assert "Which attention heads of smollm2-135m solve the task" in read(folder / "set.html")


def test_components_in_one_place_or_of_another_kind_have_no_grid():
    two = [Component(i, "L1H0", "head", layer=1, unit=0) for i in range(2)]
    effects = Effects.of([], "in the intact model")
    assert grid.lay_out(two, effects, 4) is None
    assert grid.lay_out([Component(0, "x", "argument", layer=1)], effects, 4) is None
    assert grid.lay_out([], effects, 4) is None
    laid_out = grid.lay_out(two[:1], effects, 4)
    assert laid_out is not None
    assert len(laid_out.panels[0].columns) == 4


def test_energy_without_shares_has_no_bars():
    assert energy.bars(None) == energy.bars({"linear": 0.0, "within": 0.0, "across": 0.0}) == []
    bars = energy.bars({"linear": 1, "within": 1, "across": 2, "groups": [{"layers": [1, 3], "linear": 1}, {"layers": [5], "linear": 1}]})
    assert [bar.label for bar in bars] == ["all layers", "layer 5", "layers 1, 3"]
    assert bars[0].shares == (0.25, 0.25, 0.5)


def test_prunings_without_held_out_prompts_show_those_of_the_choice():
    rows = [
        {"keep": 0.5, "kept": 3, "method": method, "train": 1.5, "heldout": None, "lo": None, "hi": None, "components": None} for method in ("mine", "singles")
    ]
    assert pruning.methods(rows) == ["singles", "mine"]
    assert pruning.score(rows[0]) == 1.5
    assert not pruning.held_out(rows)
    assert pruning.intact(rows) is None
    assert pruning.choices(rows) == []
    assert [cell["method"] for cell in pruning.table(rows)[0]["cells"]] == ["singles", "mine"]


@pytest.mark.parametrize(
    ("spearman", "message"), [(1.0, "agrees closely"), (0.5, "agrees in part"), (0.0, "does not agree"), (-0.9, "disagrees"), (None, "cannot be compared")]
)
def test_rank_correlations_in_words(spearman, message):
    assert agreement.in_words(spearman) == message


def test_a_task_and_an_ablation_without_words_are_named_as_they_are():
    run = {"lens": "mechanistic", "model": "m", "n": 1, "game": {"description": {"task": "chess", "ablation": "freeze", "positions": "last"}}}
    assert words.question(run, ["mlp"]) == "Which MLPs of m solve the task chess?"
    assert words.what_is_ablated(run, ["mlp"], [3]) == "1 MLP in layer 3 (counted from 0). An ablated MLP is freeze, at the last position."


def test_a_method_that_was_left_out_keeps_its_reason(tmp_path):
    game = model_pages.info(model_pages.heads([1, 2], 3), heads=3)
    with Store.open(tmp_path / "s.duckdb") as store:
        store.start_run("r", model_pages.spec(game), game, lens="mechanistic", explorer="screen", seed=0)
        singles = pa.table({"component": pa.array(range(6), pa.int32()), "value": np.arange(6.0), "method": ["removed"] * 6})
        reasons = [pages.reason("cross_check_missing", "Cross-check: attention rollout is left out: this model shows no attentions.")]
        store.finish_run("r", "done", {"verdict": "reliable", "reasons": reasons, "metrics": {}}, singles=singles)
        text = read(write_report(store, "r", tmp_path / "r.html"))
    assert reasons[0]["sentence"] in text
    assert "No interactions were found." in text
    assert "Other methods" not in text
