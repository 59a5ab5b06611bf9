"""A chat template that states today's date: the date is part of the question, taken once and stored, so that a run of another day is asked again as it was. Float32."""

import datetime as dt
import json
import time

import pytest
from tiny_models import byte_tokenizer, save

import raysp
from raysp.actions.finished import finished_run
from raysp.errors import UserError
from raysp.lenses import build_game
from raysp.lenses.chat import apply_chat_template
from raysp.specs.lenses import DataLens, FeatureLens, MechanisticLens
from raysp.specs.policy import NO_CONSENT
from raysp.specs.run import resolve, run_spec

MESSAGES = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}"
LLAMA = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}Today Date: {{ date_string }}\n" + MESSAGES
# 26 hours apart: it is never the same day in both.
HERE, THERE = "Etc/GMT+12", "Etc/GMT-14"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, template in (("dated", LLAMA), ("plain", MESSAGES)):
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = template
        save("llama", folder / name, tokenizer=tokenizer)
    return {name: str(folder / name) for name in ("dated", "plain")}


@pytest.fixture
def days(monkeypatch):
    """Takes this process to a place where it is another day."""

    def go(place):
        monkeypatch.setenv("TZ", place)
        time.tzset()

    yield go
    monkeypatch.undo()
    time.tzset()


def feature(folder, **options):
    return FeatureLens(**{"model": folder, "dtype": "float32", "device": "cpu", "prompt": "Her acting never fails", "target": " not", "chat": True, **options})


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    talk = [[{"role": "user", "content": f"film {i}"}, {"role": "assistant", "content": word}] for i, word in enumerate(("bad", "good", "long", "not"))]
    path.write_text("\n".join(json.dumps({"messages": messages}) for messages in talk))
    return str(path)


def test_a_run_of_yesterday_is_reused_today(folders, days, home):
    days(HERE)
    spec = raysp.RunSpec(lens=feature(folders["dated"]), explorer=raysp.Exhaustive(), local=True)
    raysp.run(spec, run_id="yesterday")
    days(THERE)
    with raysp.Store.read(home / "raysp.duckdb") as store:
        row = store.run_row("yesterday")
    again = raysp.run(run_spec(row["spec"]))
    assert sum(again.costs["evaluations"].to_pylist()) == 0
    assert again.summary["game_id"] == row["game_id"]
    asked_today = raysp.run(spec)
    assert asked_today.summary["game_id"] != row["game_id"]


def test_a_data_run_of_yesterday_is_trained_again_on_the_same_texts(folders, days, rows, home):
    lens = DataLens(model=folders["dated"], dtype="float32", device="cpu", train=rows, query_count=1, adapted_layers="last:1", epochs=1)
    days(HERE)
    run = raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Singles(), local=True))
    days(THERE)
    with raysp.Store.read(home / "raysp.duckdb") as store:
        row = store.run_row(run.run_id)
    assert build_game(finished_run(row, "lds", NO_CONSENT).lens).info.fingerprint == row["game"]["fingerprint"]


@pytest.mark.parametrize("kind", ["feature", "mechanistic", "data"])
def test_the_date_is_part_of_the_question_only_where_the_template_states_it(folders, rows, kind):
    common = {"dtype": "float32", "device": "cpu"}
    for name, differ in (("dated", True), ("plain", False)):
        fingerprints = set()
        for date in ("2026-11-27", "2026-11-28"):
            lens = {
                "feature": lambda model, date: feature(model, date=date),
                "mechanistic": lambda model, date: MechanisticLens(model=model, prompt="Her acting", target=" not", chat=True, date=date, **common),
                "data": lambda model, date: DataLens(model=model, train=rows, query_count=1, adapted_layers="last:1", date=date, **common),
            }[kind](folders[name], date)
            info = build_game(lens).info
            fingerprints.add(info.fingerprint)
            assert any("states the date: " + date in note for note in info.notes) == differ
        assert len(fingerprints) == 1 + differ


def test_the_template_writes_the_date_that_is_given(folders):
    game = build_game(feature(folders["dated"], date="2025-03-09"))
    assert game.info.description["input"].startswith("Today Date: 09 Mar 2025\n[user] Her acting never fails\n")


@pytest.mark.parametrize("beginning", ["", "\n", "  ", "  {% if true %}x{% endif %}", "{% set form = '%A, %-d. %B %Y, week %V' %}{{ strftime_now(form) }} "])
def test_a_template_with_a_date_is_what_transformers_makes_of_it_today(beginning):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = beginning + LLAMA
    messages, today = [{"role": "user", "content": "hi"}], dt.datetime.now().astimezone().date()
    own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert apply_chat_template(tokenizer, messages, None) == apply_chat_template(tokenizer, messages, today) == own


def test_a_spec_takes_todays_date_once_and_only_where_a_chat_template_may_state_it(folders, rows):
    spec = raysp.RunSpec(lens=feature(folders["dated"]))
    assert resolve(spec).lens.date == dt.datetime.now().astimezone().date()
    assert resolve(raysp.RunSpec(lens=feature(folders["dated"], date="2020-02-29"))).lens.date == dt.date(2020, 2, 29)
    assert resolve(raysp.RunSpec(lens=feature(folders["dated"], chat=False))).lens.date is None
    assert resolve(raysp.RunSpec(lens=DataLens(train=rows))).lens.date is not None


def test_dates_are_written_in_one_way():
    yaml_date = run_spec({"lens": {"kind": "feature", "prompt": "a b", "date": dt.date(2026, 11, 28)}}).lens.date
    assert yaml_date == run_spec({"lens": {"kind": "feature", "prompt": "a b", "date": "2026-11-28"}}).lens.date
    with pytest.raises(UserError, match=r"date: '28\.11\.2026' is not a date; write year, month and day, such as 2026-11-28"):
        run_spec({"lens": {"kind": "feature", "prompt": "a b", "date": "28.11.2026"}})
