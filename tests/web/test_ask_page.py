"""The page on which questions are asked, in a browser, of a running service."""

import hashlib
import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from accessibility import serious, width
from waiting import until

from raysp.specs.explorers import EXPLORER_OPTIONS
from raysp.specs.run import LENSES, RunSpec
from raysp.specs.validation import Validation
from raysp.web.asking import CHOSEN_HERE
from raysp.web.pages.ask import LENS_NAMES, lens_form

HOSTILE = '</script><img src=x onerror="alert(1)">"><svg onload=alert(2)>'
PROMPT = "Her acting never fails to impress"
#: Longer than a check of what is filled in takes to begin and to be answered.
CHECKED_MS = 1500
SMALL = {"explorer.budget": "40", "validation.heldout": "10", "validation.top": "2", "validation.random": "1", "validation.low_pairs": "1"}


def path_of(kind, path):
    return f"#{kind}-{path.replace('.', '-')}"


@pytest.fixture
def ask(open_page, service):
    """The page, with the tiny model filled in for a lens. Where a submitted question leads is another page's business."""

    def opened(address="/ask", kind="feature", width=1280, scheme="light", **fields):
        page = open_page(address, width, scheme)
        page.route(lambda url: urlsplit(url).path.startswith("/runs"), lambda route: route.fulfill(body="<title>runs</title>", content_type="text/html"))
        if fields.pop("filled", True):
            page.locator(f"input[name=kind][value={kind}]").check(force=True)
            page.fill(path_of(kind, "lens.model"), service.model)
            page.locator(f"#lens-{kind} .options > summary").click()
            for path, text in {**SMALL, **fields}.items():
                page.fill(path_of(kind, path), text)
        return page

    return opened


def submitted(page):
    """The path and query of the page to which a submitted question leads."""
    page.wait_for_url(re.compile("/runs"))
    return urlsplit(page.url)


def spec_of(service, page):
    return service.read(f"/runs/{submitted(page).path.split('/')[-1]}")["spec"]


def chosen(name, rows):
    return {"name": name, "mimeType": "application/jsonl", "buffer": "".join(json.dumps(row) + "\n" for row in rows).encode()}


def upload(page, kind, path, file):
    page.locator(f"#lens-{kind} .upload[data-for='{path}']").set_input_files(file)


def test_every_field_of_every_model_is_in_the_form_once():
    for kind in LENS_NAMES:
        form = lens_form(kind)
        paths = [field.path for field in (*form.first, *(field for _, fields in form.others for field in fields))]
        wanted = {f"lens.{name}" for name in LENSES[kind].model_fields} - {"lens.kind"} | {f"validation.{name}" for name in Validation.model_fields}
        wanted |= {f"explorer.{name}" for options in EXPLORER_OPTIONS.values() for name in options.model_fields}
        run = set(RunSpec.model_fields) - {"lens", "explorer", "validation", *CHOSEN_HERE}
        assert len(paths) == len(set(paths))
        assert wanted <= set(paths) <= wanted | run


def test_a_question_is_asked_with_the_keyboard_alone(ask, service):
    page = ask(filled=False)

    def tab_to(selector):
        for _ in range(60):
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(selector)

    tab_to("#feature-lens-prompt")
    page.keyboard.type(PROMPT)
    tab_to("#feature-lens-target")
    page.keyboard.type(" good")
    tab_to("#feature-lens-foil")
    page.keyboard.type(" bad")
    tab_to("#feature-lens-model")
    page.keyboard.type(service.model)
    page.keyboard.press("Enter")
    spec = spec_of(service, page)
    assert (spec["lens"]["prompt"], spec["lens"]["target"], spec["lens"]["foil"], spec["lens"]["model"]) == (PROMPT, " good", " bad", service.model)
    service.client.post(f"/runs/{submitted(page).path.split('/')[-1]}/cancel")


def test_options_that_are_filled_in_are_those_of_the_run(ask, service):
    page = ask(**{"lens.prompt": PROMPT, "name": HOSTILE, "seed": "7"})
    page.select_option("#feature-lens-ablation", "replace")
    page.fill("#feature-lens-replacement", "…")
    page.select_option("#feature-explorer-kind", "screen")
    assert page.locator("#feature-explorer-proxy").is_hidden()
    page.select_option("#priority", "7")
    page.click("#submit")
    spec = spec_of(service, page)
    assert (spec["lens"]["ablation"], spec["lens"]["replacement"], spec["explorer"]["kind"], spec["seed"], spec["name"]) == (
        "replace",
        "…",
        "screen",
        7,
        HOSTILE,
    )
    assert spec["validation"] == {"heldout": 10, "near": 60, "top": 2, "random": 1, "low_pairs": 1}
    run_id = submitted(page).path.split("/")[-1]
    assert until("its row", lambda: next((row for row in service.read("/runs")["runs"] if row["run_id"] == run_id), None))["priority"] == 7


def test_a_problem_stands_beside_its_field_and_goes_when_it_is_corrected(ask):
    page = ask(**{"lens.prompt": PROMPT, "explorer.budget": "many"})
    field, note = page.locator("#feature-explorer-budget"), page.locator("#feature-explorer-budget-note")
    page.wait_for_selector("#feature-explorer-budget[aria-invalid=true]")
    assert "“many” is not valid" in note.inner_text()
    assert field.get_attribute("aria-describedby") == note.get_attribute("id")
    page.click("#submit")
    page.wait_for_selector("#feature-explorer-budget:focus")
    field.fill("64")
    page.wait_for_selector("text=Ready to be asked.")
    assert field.get_attribute("aria-invalid") is None
    assert "Maximum number of evaluations" in note.inner_text()


def test_nothing_is_asked_about_nothing(ask):
    page = ask()
    page.click("#submit")
    page.wait_for_timeout(CHECKED_MS)
    assert page.locator("#feature-lens-prompt").get_attribute("aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "feature-lens-prompt"
    assert urlsplit(page.url).path == "/ask"


def test_a_prompt_is_shown_in_pieces_and_target_and_foil_are_picked_from_the_models_tokens(ask):
    page = ask(**{"lens.prompt": f"{PROMPT} {HOSTILE}"})
    page.click("#preview")
    page.wait_for_selector("#answers li")
    assert page.locator("#pieces").inner_text() == f"{PROMPT} {HOSTILE}"
    assert page.locator(".piece").all_inner_texts() == f"{PROMPT} {HOSTILE}".split()
    assert page.locator("#answers li").count() == 10
    offered = page.locator("#answers li:has(button)")  # parts of characters are none
    offered.nth(0).get_by_role("button", name="Target").click()
    offered.nth(1).get_by_role("button", name="Foil").click()
    titles = [json.loads(offered.nth(i).locator(".token").get_attribute("title")) for i in (0, 1)]
    assert [page.input_value("#feature-lens-target"), page.input_value("#feature-lens-foil")] == titles
    assert page.locator("#answers [aria-pressed=true]").count() == 2


def test_pieces_follow_the_prompt_by_themselves_once_the_model_answers_quickly(ask):
    page = ask(**{"lens.prompt": PROMPT})

    def is_quick():
        page.click("#preview")
        page.wait_for_selector("#preview-note >> text=answered by")
        return page.locator("#look").get_attribute("data-quick") == "true"

    until("a model that answers quickly", is_quick)
    page.select_option("#feature-lens-unit", "sentence")
    page.fill("#feature-lens-prompt", "It rains. I stay at home.")
    page.wait_for_selector(".piece >> text=I stay at home.")


def test_a_plan_is_shown_before_anything_is_spent(ask):
    page = ask(**{"lens.prompt": PROMPT})
    page.click("#plan")
    page.wait_for_selector("#planned:visible")
    told = page.locator("#planned").inner_text()
    assert re.search(r"Components\s+6\b", told)
    assert re.search(r"pairs\s+15\b", told)
    assert re.search(r"subsets\s+64\b", told)
    page.fill("#feature-explorer-budget", "50")
    assert page.locator("#planned").is_hidden()  # it is no longer what was planned


def test_a_file_of_examples_asks_a_question_for_each_row(ask, service):
    page = ask(name="rows")
    upload(page, "feature", "examples", chosen(f"{HOSTILE.replace('/', '')}.jsonl", [{"prompt": PROMPT, "target": " good", "foil": " bad"}] * 3))
    page.wait_for_selector("text=Asks for 3 runs.")
    page.click("#submit")
    address = submitted(page)
    assert parse_qs(address.query) == {"set": ["rows"]}
    assert service.read("/runs", set="rows")["total"] == 3


def test_a_training_set_is_uploaded_and_planned(ask):
    page = ask(kind="data", **{"lens.query_count": "2", "lens.epochs": "1", "lens.adapted_layers": "last:1", "lens.max_tokens": "32"})
    upload(page, "data", "lens.train", chosen("train.jsonl", [{"prompt": f"What is {k} and {k}?", "completion": f" {2 * k}"} for k in range(8)]))
    page.wait_for_function("document.querySelector('#data-lens-train').value.startsWith('train.jsonl (')")  # once it is read
    page.click("#plan")
    page.wait_for_selector("#planned:visible")
    assert "6 training examples" in page.locator("#planned").inner_text()
    page.locator("#lens-data").get_by_role("button", name="Remove train.jsonl").click()
    assert not page.locator("#data-lens-train").input_value()


def test_a_browser_without_crypto_hashes_files_as_well(open_page, service):
    page = open_page("/ask")
    for size in (0, 1, 55, 56, 63, 64, 65, 1000):
        content = bytes(i % 251 for i in range(size))
        found = page.evaluate("content => import('/static/app/files.js').then(files => files.sha256(Uint8Array.from(content)))", list(content))
        assert found == hashlib.sha256(content).hexdigest()


def test_a_double_click_asks_once(ask, service):
    page = ask(**{"lens.prompt": PROMPT, "name": "twice"})
    page.locator("#submit").dblclick()
    submitted(page)
    assert service.read("/runs", q="twice")["total"] == 1


def test_a_question_is_asked_again_with_its_fields_filled_in(ask, answered, service):
    page = ask(f"/ask?from={answered['mechanistic']}", filled=False)
    page.wait_for_selector("#lens-mechanistic:visible")
    before = service.read(f"/runs/{answered['mechanistic']}")["spec"]
    assert page.input_value("#mechanistic-lens-layers") == "0"
    assert page.input_value("#mechanistic-lens-clamp") == ""  # what is at its default stays empty
    page.click("#submit")
    assert spec_of(service, page) == before


def test_what_is_filled_in_survives_a_reload(ask):
    page = ask(kind="mechanistic", **{"lens.prompt": PROMPT, "lens.layers": "0"})
    page.select_option("#mechanistic-lens-ablation", "mean")
    page.reload()
    assert page.locator("#lens-mechanistic").is_visible()
    assert [page.input_value(f"#mechanistic-lens-{name}") for name in ("prompt", "layers", "ablation")] == [PROMPT, "0", "mean"]
    page.click("#clear")
    page.reload()
    assert not page.input_value("#mechanistic-lens-prompt")


def test_a_spec_is_pasted(ask, service):
    page = ask(filled=False)
    page.locator("input[name=kind][value=spec]").check(force=True)
    page.fill("#yaml", "lens:\n  kind: feature\n  nosuch: 1\n")
    page.wait_for_selector("#problem >> text=nosuch")
    page.fill("#yaml", yaml.safe_dump(service.question() | {"name": "pasted"}))
    page.wait_for_selector("text=Ready to be asked.")
    page.click("#submit")
    assert spec_of(service, page)["name"] == "pasted"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(ask, scheme):
    page = ask(scheme=scheme, **{"lens.prompt": PROMPT, "explorer.budget": "x"})
    page.wait_for_selector("#feature-explorer-budget[aria-invalid=true]")
    page.click("#preview")
    page.wait_for_selector("#answers li")
    page.fill("#feature-explorer-budget", "40")
    page.click("#plan")
    page.wait_for_selector("#planned:visible")
    assert serious(page) == []
    page.set_viewport_size({"width": 360, "height": 800})
    assert width(page) == 360
