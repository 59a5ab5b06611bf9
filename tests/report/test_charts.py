"""Charts drawn from their descriptions: axes, marks, legends, tooltips by pointer and keyboard, at any width."""

import json

import pytest

from raysp.report.render import asset

LINES = {
    "kind": "curves", "x": "share", "y": "value", "suffix": " %", "reference": {"name": "intact", "value": 2.0},
    "series": [
        {"name": "a", "look": "ink", "symbol": "circle", "dash": "solid", "x": [10, 20, 30], "y": [1, None, 3], "lo": [0.5, None, 2], "hi": [1.5, None, 4]},
        {"name": "b", "look": "pos", "symbol": "square-open", "dash": "dash", "x": [10, 30], "y": [2, 1]},
    ],
}  # fmt: skip
BARS = {
    "kind": "bars",
    "x": "effect",
    "labels": ["first <b>", "second", "none"],
    "values": [3e-7, -1e-7, None],
    "lo": [2e-7, -2e-7, None],
    "hi": [4e-7, 0, None],
}
POINTS = {
    "kind": "points",
    "x": "exact",
    "y": "predicted",
    "diagonal": True,
    "series": [{"name": "s", "x": [0, 1, 2], "y": [0, 1, 4], "texts": ["p", "q", "r"]}],
}
MANY = {"kind": "points", "x": "i", "y": "i²", "series": [{"name": "s", "x": list(range(5000)), "y": [i * i for i in range(5000)]}]}
DUMBBELLS = {
    "kind": "dumbbells",
    "x": "R²",
    "labels": ["one", "two"],
    "series": [{"name": "alone", "values": [0.1, None]}, {"name": "both", "values": [0.5, 0.7]}],
}
CHARTS = {"curves": LINES, "bars": BARS, "points": POINTS, "many": MANY, "dumbbells": DUMBBELLS, "flat": {**BARS, "values": [0, 0, 0], "lo": None, "hi": None}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page with nothing but the charts."""
    place = tmp_path_factory.mktemp("charts")
    styles, scripts = "".join(map(asset, ("page.css", "charts.css"))), "".join(map(asset, ("base.js", "charts.js")))
    made = "".join(f'<div id="{name}" aria-label="a chart of {name}"></div>' for name in CHARTS)
    draw = f"const charts = {json.dumps(CHARTS).replace('<', chr(92) + 'u003c')}; for (const name in charts) raysp.drawChart(document.getElementById(name), charts[name]);"
    (place / "charts.html").write_text(f"<!doctype html><meta charset=utf-8><style>{styles}</style><main>{made}</main><script>{scripts}{draw}</script>")
    return place


@pytest.mark.parametrize("width", [360, 1280])
def test_charts_fit_their_place_and_no_text_of_an_axis_lies_on_another(visit, width):
    page = visit("charts", width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = """[...document.querySelectorAll('.plot text')].filter(e => {
        const [box, plot] = [e.getBoundingClientRect(), e.closest('.plot').getBoundingClientRect()];
        return box.left < plot.left - 1 || box.right > plot.right + 1 || box.top < plot.top - 2 || box.bottom > plot.bottom + 1;
    }).map(e => e.textContent)"""
    assert page.evaluate(outside) == []
    touching = """[...document.querySelectorAll('.plot')].flatMap(plot => {
        const boxes = [...plot.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
        return boxes.flatMap(([one, a], i) => boxes.slice(i + 1)
            .filter(([, b]) => a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom).map(([other]) => [one, other]));
    })"""
    assert page.evaluate(touching) == []
    for name in CHARTS:
        assert page.locator(f"#{name} .tick").count() > 2


def test_a_chart_has_a_name_a_role_and_one_tab_stop(visit):
    page = visit("charts")
    for name in CHARTS:
        assert page.locator(f"#{name} svg.plot[role=img][tabindex='0']").get_attribute("aria-label") == f"a chart of {name}"


def test_marks_lie_where_their_numbers_are(visit):
    page = visit("charts")
    boxes = page.locator("#bars rect.bar").evaluate_all("all => all.map(e => [e.x.baseVal.value, e.width.baseVal.value, e.classList.contains('look-neg')])")
    (right, long, _), (left, short, negative) = boxes
    assert len(boxes) == 2  # a missing value has no bar
    assert long == pytest.approx(3 * short, rel=0.02)
    assert left + short == pytest.approx(right, abs=0.2)
    assert negative
    assert "×10⁻⁷" in page.locator("#bars .title").text_content()
    line = page.locator("#curves path.line.look-ink").get_attribute("d")
    assert line.count("M") == 2  # a missing value is a gap
    assert page.locator("#curves path.error").get_attribute("d").count("V") == 2
    assert page.locator("#points path.diagonal").count() == 1
    assert page.locator("#many path.mark").get_attribute("d").count("M") == 5000
    assert page.locator("#many path.mark").count() == 1


def test_a_legend_stands_where_there_is_more_than_one_series(visit):
    page = visit("charts")
    assert page.locator("#curves .key-name").all_text_contents() == ["a", "b", "intact"]
    assert page.locator("#dumbbells .key-name").all_text_contents() == ["alone", "both"]
    assert page.locator("#points .key-name").count() == page.locator("#bars .key-name").count() == 0


def test_a_mark_says_what_it_is_to_the_pointer_and_to_the_keyboard(visit):
    page = visit("charts")
    box = page.locator("#bars rect.bar").first.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 7)
    tip = page.locator(".tip")
    assert tip.text_content() == "first <b>: +3.00×10⁻⁷ (+2.00×10⁻⁷ to +4.00×10⁻⁷)"
    page.mouse.move(0, 0)
    assert not tip.is_visible()
    page.locator("#points .plot").focus()
    for key, words in (("ArrowRight", "p: "), ("ArrowRight", "q: exact +1.00, predicted +1.00"), ("End", "r: "), ("ArrowLeft", "q: ")):
        page.keyboard.press(key)
        assert tip.text_content().startswith(words)
        assert page.locator("#points .ring").count() == 1
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    assert page.locator("#points .ring").count() == 0


def test_a_chart_follows_the_width_of_its_place_and_another_takes_its_place(visit):
    page = visit("charts")
    page.locator("#curves").evaluate("e => e.style.setProperty('width', '400px')")
    page.wait_for_function("() => document.querySelector('#curves .plot').getAttribute('width') === '400'")
    page.evaluate("raysp.drawChart(document.getElementById('curves'), charts.bars)")
    assert page.locator("#curves .plot").count() == 1
    assert page.locator("#curves rect.bar").count() == 2
    assert page.locator("#curves .keys").count() == 0


def test_colours_follow_the_scheme_without_redrawing(visit):
    page = visit("charts")
    colour = "getComputedStyle(document.querySelector('#curves .line')).stroke"
    before, drawn = page.evaluate(colour), page.locator("#curves .plot").inner_html()
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(colour) != before
    assert page.locator("#curves .plot").inner_html() == drawn
