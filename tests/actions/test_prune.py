"""Acting on a run of a tiny model: the model that is written is the one that the ablation measured, and a run that cannot be acted on is a one-line error."""

import json
from contextlib import suppress
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from tiny_models import VOCABULARY, byte_tokenizer, save
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, MixtralConfig, MixtralForCausalLM, PreTrainedModel

import raysp
from raysp.actions import prune as acting
from raysp.datasets.held_out import held_out_prompts
from raysp.datasets.tasks import make
from raysp.lenses import build_game
from raysp.lenses.mechanistic import MechanisticGame, build_mechanistic_game
from raysp.masks import unpack
from raysp.models.resident import resident
from raysp.models.weight_pruning import operated
from raysp.runs.local import LocalBackend, local_backend
from raysp.specs.run import run_spec

ROWS = [
    {"prompt": "Her acting never fails, the film was long", "target": " not", "foil": "!"},
    {"prompt": "Review: The movie was bad", "target": " yes", "foil": " no"},
    {"prompt": "A quiet letter arrived on Monday", "target": " film", "foil": " was"},
]
UNSEEN = [
    {"prompt": "The ending was good, but the film was long", "target": " not", "foil": "!"},
    {"prompt": "Nobody in the city read it", "target": " yes", "foil": " no"},
    {"prompt": "The acting was not bad at all", "target": " film", "foil": " was"},
    {"prompt": "Review: nobody read the letter", "target": " no", "foil": " yes"},
]


def jsonl(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


class Asked:
    """Runs of tiny models in one store, each made when it is first needed."""

    def __init__(self, folder):
        self.folder, self.store, self._runs = folder, folder / "raysp.duckdb", {}
        self.rows, self.unseen = jsonl(folder / "rows.jsonl", ROWS), jsonl(folder / "unseen.jsonl", UNSEEN)

    def model(self, kind):
        place = self.folder / kind
        return str(place) if place.exists() else save(kind, place)

    def lens(self, kind="llama", **options):
        given = {"prompts": self.rows, "components": "heads:0-1/0-2", "dtype": "float32", "device": "cpu", **options}
        return raysp.MechanisticLens(model=self.model(kind), **given)

    def run(self, kind="llama", **options):
        return self.of(self.lens(kind, **options))

    def of(self, lens, explorer=None, heldout=0):
        scored = raysp.Validation(heldout=heldout, top=0, random=0, low_pairs=0)
        spec = raysp.RunSpec(lens=lens, explorer=explorer or raysp.Exhaustive(), validation=scored, local=True, store=str(self.store))
        key = spec.model_dump_json()
        if key not in self._runs:
            self._runs[key] = raysp.run(spec).run_id
        return self._runs[key]

    def prune(self, run_id, keep=0.5, folder=None, *, heldout="", per_layer=False, draws=4):
        told = []
        with raysp.Store.open(self.store) as store:
            done = acting.prune(
                store,
                run_id,
                keep,
                folder,
                heldout=self.unseen if heldout == "" else heldout,
                per_layer=per_layer,
                draws=draws,
                backend_of=local_backend,
                watch=told.append,
            )
        assert told
        return done

    def table(self, name, run_id):
        with raysp.Store.read(self.store) as store:
            return store.run_table(name, run_id).to_pylist()

    def evaluations(self):
        with raysp.Store.read(self.store) as store:
            return store.sql("SELECT count(*) AS count FROM evaluations").to_pylist()[0]["count"]

    def single_ablations(self, run_id):
        """The components removed alone among the evaluations that a run paid for, of its own game."""
        with raysp.Store.read(self.store) as store:
            rows = store.sql(f"SELECT mask, n FROM evaluations JOIN runs USING (run_id, game_id) WHERE run_id = '{run_id}'").to_pylist()
        masks = unpack(np.array([np.frombuffer(row["mask"], np.uint8) for row in rows]), rows[0]["n"])
        return {int(np.flatnonzero(~mask)[0]) for mask in masks if (~mask).sum() == 1}

    def prunings(self, run_id):
        return self.table("prunings", run_id)

    def known(self, run_id):
        """What a run knows, and the model's tokens that it took to know it again."""
        with raysp.Store.read(self.store) as store:
            row = store.run_row(run_id)
            spec = run_spec(row["spec"])
            game = build_mechanistic_game(spec.lens)
            before = game.mask_tree.tokens
            return acting.known_of(store, row, store.surrogate(run_id), spec.seed, LocalBackend(game)), game.mask_tree.tokens - before

    def write(self, query, *told):
        with duckdb.connect(str(self.store)) as writing:
            writing.execute(query, list(told))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return Asked(tmp_path_factory.mktemp("acting"))


def margins(model, tokenizer, rows):
    """Target less foil behind each prompt, by plain forward passes."""
    found = []
    for row in rows:
        with torch.no_grad():
            last = model(**tokenizer(row["prompt"], return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
        target, foil = (tokenizer(row[name])["input_ids"] for name in ("target", "foil"))
        assert len(target) == len(foil) == 1
        found.append(float(last[target[0]] - last[foil[0]]))
    return np.array(found)


def chosen(done, keep, method="refined"):
    return next(row for row in done.rows if (row.keep, row.method) == (keep, method))


def weights(lens):
    return {name: tensor.clone() for name, tensor in resident(lens).loaded.model.state_dict().items()}


def test_what_one_pruning_measured_no_other_measures_again(asked, monkeypatch):
    """On the run's own prompts, which it did not exhaust, and on those held out."""
    run_id = asked.of(asked.lens("llama"), raysp.ProxySPEX(budget=20, keep=0.5))
    paid, plain = [], MechanisticGame.by_prompt

    def counted(game, masks):
        paid.append(id(game))
        return plain(game, masks)

    monkeypatch.setattr(MechanisticGame, "by_prompt", counted)
    assert 0 < len(asked.single_ablations(run_id)) < 6
    first = asked.prune(run_id, draws=6)
    assert len(set(paid)) == 2
    assert len(asked.single_ablations(run_id)) == 6
    before = asked.evaluations()
    paid.clear()
    again = asked.prune(run_id, draws=6)
    assert paid == []
    assert asked.evaluations() == before
    assert [(row.method, row.train, row.heldout, row.evaluations) for row in again.rows] == [
        (row.method, row.train, row.heldout, row.evaluations) for row in first.rows
    ]


WRITTEN = [
    ("llama", {}),
    ("llama", {"components": "heads:0/0-1,mlp,neurons:0/0-15,blocks:1", "group": 8, "ablation": "zero-rescale"}),
    ("gpt2", {"components": "heads:0,mlp,blocks:1"}),
]


@pytest.mark.parametrize(("kind", "options"), WRITTEN, ids=["llama", "llama rescaled", "gpt2"])
def test_the_written_model_is_the_one_that_the_ablation_measured(asked, tmp_path, kind, options):
    lens, run_id = asked.lens(kind, **options), asked.run(kind, **options)
    before, folder = weights(lens), tmp_path / "new" / "pruned"
    done = asked.prune(run_id, 0.5, folder)
    row = chosen(done, 0.5)
    game = build_game(lens)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)
    assert margins(model, tokenizer, ROWS).mean() == pytest.approx(game.evaluate(row.mask[None])[0], abs=1e-4)
    assert margins(model, tokenizer, ROWS).mean() == pytest.approx(row.train, abs=1e-4)
    assert margins(model, tokenizer, UNSEEN).mean() == pytest.approx(row.heldout, abs=1e-4)
    assert abs(row.train - chosen(done, 0.5, "intact").train) > 1e-3  # what went did something
    told = json.loads((folder / "pruning.json").read_text())
    assert told["removed"] == [component.label for component, kept in zip(game.components, row.mask, strict=True) if not kept]
    assert told["value"] == pytest.approx(row.train, abs=1e-4)
    assert (told["keep"], told["ablation"], told["model"], told["dtype"]) == (0.5, lens.ablation, lens.model, "float32")
    assert done.written == told | {"folder": str(folder)}
    assert [path.name for path in folder.parent.iterdir()] == ["pruned"]
    after = weights(lens)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


KINDS = [
    *((kind, {"components": components}) for kind in ("llama", "gpt2", "opt", "gemma2") for components in ("heads,mlp", "neurons:0-1/0-47", "blocks")),
    *((kind, {"components": components, "ablation": "zero-rescale"}) for kind in ("llama", "gpt2") for components in ("heads", "neurons:1/8-39")),
]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[f"{kind} {' '.join(options.values())}" for kind, options in KINDS])
def test_weights_without_some_parts_do_what_the_ablation_does(asked, kind, options):
    """For any choice of parts; and the weights are restored afterwards, also after an error."""
    lens = asked.lens(kind, **options, group=8 if "neurons" in options["components"] else 1)
    game, before = build_game(lens), weights(lens)
    masks = np.random.default_rng(0).random((6, game.n)) < 0.5
    for mask, value in zip(masks, game.evaluate(masks), strict=True):
        gone = [part for part, kept in zip(game.mask_tree.ablation.parts, mask, strict=True) if not kept]
        with suppress(KeyboardInterrupt), operated(game.mask_tree.blockwise.architecture, gone, rescale=lens.ablation == "zero-rescale"):
            assert margins(game.model.loaded.model, game.model.loaded.tokenizer, ROWS).mean() == pytest.approx(value, abs=1e-4)
            raise KeyboardInterrupt
    after = weights(lens)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_the_figures_are_kept_with_the_run(asked):
    run_id = asked.run()
    done = asked.prune(run_id, 4 / 6)
    assert done.written is None
    stored = asked.prunings(run_id)
    assert sorted({row["keep"] for row in stored}) == [0.5, 4 / 6, 0.83]  # .66 would leave out as many, and is not asked for twice
    for row in done.rows:
        (kept,) = [other for other in stored if (other["keep"], other["method"]) == (row.keep, row.method)]
        assert kept["components"] == np.flatnonzero(row.mask).tolist()
        assert kept["kept"] == row.mask.sum()
        assert [kept[name] for name in ("train", "heldout", "lo", "hi", "prompts")] == [row.train, row.heldout, row.lo, row.hi, len(UNSEEN)]
    with raysp.Store.read(asked.store) as store:
        assert store.run_row(run_id)["status"] == "done"
    asked.prune(run_id, 0.3)  # takes the place of the figures before
    assert sorted({row["keep"] for row in asked.prunings(run_id)}) == sorted({0.3, *acting.SHARES})


def test_all_subsets_are_known_exactly_and_interactions_find_the_best(asked):
    """The run has measured every mask: what interactions choose is the best half on the run's prompts."""
    lens, run_id = asked.lens(), asked.run()
    done, game = asked.prune(run_id, 0.5), build_game(lens)
    masks = np.array([[bool(number >> i & 1) for i in range(6)] for number in range(64)])
    halves = masks[masks.sum(axis=1) == 3]
    for method in ("interactions", "refined"):
        assert chosen(done, 0.5, method).train == pytest.approx(game.evaluate(halves).max(), abs=1e-4)


def test_per_layer_takes_the_same_share_of_each(asked):
    row = chosen(asked.prune(asked.run(), 4 / 6, per_layer=True), 4 / 6)
    assert [row.mask[:3].sum(), row.mask[3:].sum()] == [2, 2]


EXPLORERS = {
    "pilot": raysp.ProxySPEX(budget=130, max_order=2, proxy="trees"),
    "adaptive": raysp.ProxySPEX(budget=190, max_order=2, keep=0.6, adaptive=True, proxy="kernel"),
    "gradient": raysp.ProxySPEX(budget=110, max_order=2, proxy="gradient"),
    "singles": raysp.Singles(budget=60),
    "screen": raysp.Screen(),
    "exhaustive": raysp.Exhaustive(),
}


@pytest.mark.parametrize("explorer", EXPLORERS.values(), ids=EXPLORERS)
def test_what_a_run_knows_is_what_it_said(asked, explorer):
    run_id = asked.of(asked.lens(components="heads"), explorer, heldout=30)
    known, _ = asked.known(run_id)
    rows = asked.table("heldout", run_id)
    masks = unpack(np.array([np.frombuffer(row["mask"], np.uint8) for row in rows]), known.n)
    assert len(masks) >= 30
    assert known.surrogate.predict(masks) == pytest.approx([row["predicted"] for row in rows], abs=1e-12)
    near = np.concatenate([np.ones((1, known.n), dtype=bool), ~np.eye(known.n, dtype=bool)])
    values = build_game(asked.lens(components="heads")).evaluate(near)
    assert known.effects == pytest.approx(values[0] - values[1:], abs=1e-4)


def test_what_the_store_has_is_not_measured_again(asked):
    """A run that took every single ablation knows its exact single effects; one that drew random masks alone has to have them measured."""
    lens = asked.lens(components="heads")
    assert asked.known(asked.of(lens, EXPLORERS["screen"], heldout=30))[1] == 0
    other = asked.lens(components="heads", value="logprob_diff")  # of which the store knows nothing yet
    assert asked.known(asked.of(other, EXPLORERS["singles"]))[1] > 0


def test_a_run_stored_before_surrogates_were_is_to_be_asked_again(asked):
    run_id = asked.of(asked.lens(components="heads:0", value="logprob_diff"))
    asked.write("DELETE FROM surrogates WHERE run_id = ?", run_id)
    with pytest.raises(raysp.UserError, match=r"has no surrogate in the store.*; run the same question again"):
        asked.prune(run_id)


@pytest.mark.parametrize("explorer", ["gradient", "singles", "screen"])
def test_what_is_refined_does_no_worse_on_the_runs_prompts_than_singles(asked, explorer):
    run_id = asked.of(asked.lens(components="heads"), EXPLORERS[explorer], heldout=30)
    done = asked.prune(run_id, 0.5)
    assert chosen(done, 0.5).mask.sum() == 6
    for method in ("interactions", "singles", "top_singles"):
        assert chosen(done, 0.5).train >= chosen(done, 0.5, method).train
    assert [row.evaluations for row in done.rows if row.keep == 0.5] == [0, 4, 0, 4, 0, 4, 0]


# ---- values of every sort


@pytest.mark.parametrize("value", ["kl", "loss"])
def test_models_are_written_whatever_the_value(asked, tmp_path, value):
    """A divergence is from the model as it was, in the written one too."""
    run_id = asked.run(value=value)
    done = asked.prune(run_id, 0.5, tmp_path / "pruned")
    row = chosen(done, 0.5)
    assert done.written["value"] == pytest.approx(row.train, abs=1e-4)
    best = min if value in ("kl", "loss") else max
    masks = np.array([[bool(number >> i & 1) for i in range(6)] for number in range(64)])
    values = build_game(asked.lens(value=value)).evaluate(masks[masks.sum(axis=1) == 3])
    assert row.train == pytest.approx(best(values), abs=1e-4)


def test_an_answer_that_the_model_gave_itself_stays_the_question(asked, tmp_path):
    """Without targets the value is about what the intact model answers, not about what the written one would."""
    rows = jsonl(tmp_path / "plain.jsonl", [{"prompt": row["prompt"]} for row in ROWS])
    unseen = jsonl(tmp_path / "plain-unseen.jsonl", [{"prompt": row["prompt"]} for row in UNSEEN])
    run_id = asked.run(prompts=rows)
    done = asked.prune(run_id, 1 / 6, tmp_path / "pruned", heldout=unseen)
    assert done.written["value"] == pytest.approx(chosen(done, 1 / 6).train, abs=1e-4)
    again = build_mechanistic_game(asked.lens(prompts=rows).model_copy(update={"model": str(tmp_path / "pruned")}))
    answers = [answer.target for answer in again.reading.answers]
    assert answers != [answer.target for answer in build_game(asked.lens(prompts=rows)).reading.answers]  # it does answer otherwise


def test_held_out_prompts_are_read_as_the_runs_own(asked, tmp_path):
    """The run compares logits; one held-out answer of two tokens must not turn all into log-probabilities."""
    with pytest.raises(raysp.UserError, match=r"heldout prompt 2, target.*token"):
        asked.prune(asked.run(), heldout=jsonl(tmp_path / "long.jsonl", [UNSEEN[0], {**UNSEEN[1], "target": " not bad at all"}]))


def test_a_task_brings_held_out_prompts_of_its_own(asked):
    lens = asked.lens(prompts=None, task="greater-than", task_size=4)
    run_id = asked.of(lens)
    done = asked.prune(run_id, 0.5, heldout=None)
    assert {row.prompts for row in done.rows} == {4}
    row = chosen(done, 0.5)
    assert row.train != row.heldout


def test_a_task_with_too_few_other_prompts_asks_for_a_file():
    """Four countries make twelve prompts: the run has had eight."""
    few = {" France", " Paris", " Italy", " Rome", " Japan", " Tokyo", " Spain", " Madrid"}

    def count(text):
        return 1 if text in few or len(text) > 20 else 2

    lens = raysp.MechanisticLens(task="facts", task_size=8)
    with pytest.raises(
        raysp.UserError, match="heldout: cannot be generated: task facts does not have 8 prompts besides those of the run; give a file of prompts"
    ):
        held_out_prompts(lens, None, make("facts", 8, 0, count), count)


def test_answers_of_one_prompt_are_not_those_of_others(tmp_path):
    """What stands in for the missing answers of a file of prompts does so for held-out ones too."""
    source = jsonl(tmp_path / "unseen.jsonl", [{"prompt": row["prompt"]} for row in UNSEEN])
    for given, target in (({"prompts": "rows.jsonl"}, " not"), ({"prompt": "Her acting never fails"}, None)):
        found = held_out_prompts(raysp.MechanisticLens(target=" not", foil=" was", **given), source, [], len)
        assert {question.target for question in found} == {target}


def test_held_out_prompts_that_the_run_has_seen_are_left_out(asked, tmp_path):
    done = asked.prune(asked.run(), heldout=jsonl(tmp_path / "mixed.jsonl", [*ROWS, *UNSEEN]))
    assert {row.prompts for row in done.rows} == {len(UNSEEN)}


# ---- memory


def fails(monkeypatch, times):
    """Memory runs out as often as a model is put on its device."""
    left, put = [None] * times, torch.nn.Module.to

    def to(self, *args, **options):
        if isinstance(self, PreTrainedModel) and left:
            left.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return put(self, *args, **options)

    monkeypatch.setattr(torch.nn.Module, "to", to)


def test_a_written_model_that_the_device_has_no_room_for_is_checked_on_the_cpu(asked, tmp_path, monkeypatch):
    run_id = asked.run()
    fails(monkeypatch, 1)
    done = asked.prune(run_id, 0.5, tmp_path / "pruned")
    assert done.written["value"] == pytest.approx(chosen(done, 0.5).train, abs=1e-4)


def test_a_model_that_cannot_be_checked_is_not_written(asked, tmp_path, monkeypatch):
    run_id = asked.run()
    fails(monkeypatch, 2)
    with pytest.raises(raysp.EvaluationError, match="cannot be checked"):
        asked.prune(run_id, 0.5, tmp_path / "out" / "pruned")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_whose_weights_are_elsewhere_is_not_written(asked, tmp_path):
    """accelerate moves weights out of memory that does not hold them: the model runs, and there is nothing to change."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    lens = asked.lens("qwen2")
    run_id = asked.of(lens)
    accelerate.cpu_offload(resident(lens).loaded.model.model.layers[1])
    with pytest.raises(raysp.UserError, match=r"output: .* accelerate has moved some of this model's weights out of memory"):
        asked.prune(run_id, 0.5, tmp_path / "pruned")
    assert asked.prunings(run_id) == []
    assert asked.prune(run_id, 0.5).written is None


# ---- what cannot be acted on


def test_a_model_whose_weights_cannot_say_it_is_not_written(asked, tmp_path):
    """BERT normalises behind each block: a block without weights is not a block that is not there."""
    model = AutoModelForSequenceClassification.from_pretrained(asked.model("bert-classifier"))
    for name, tensor in model.named_parameters():
        if "LayerNorm" in name:
            torch.nn.init.uniform_(tensor, 0.5, 2.0)  # as made, normalising twice is normalising once
    model.save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(asked.model("bert-classifier")).save_pretrained(tmp_path / "bert")
    rows = [{**row, "target": "good", "foil": "bad"} for row in (*ROWS, *UNSEEN)]
    lens = asked.lens(prompts=jsonl(tmp_path / "rows.jsonl", rows[:3]), components="blocks").model_copy(update={"model": str(tmp_path / "bert")})
    run_id, before = asked.of(lens), weights(lens)
    with pytest.raises(raysp.EvaluationError, match="removing weights does not ablate this architecture"):
        asked.prune(run_id, 0.5, tmp_path / "out" / "pruned", heldout=jsonl(tmp_path / "unseen.jsonl", rows[3:]))
    assert list((tmp_path / "out").iterdir()) == []
    after = weights(lens)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_classifier_without_heads_is_written(asked, tmp_path):
    rows = [{**row, "target": "good", "foil": "bad"} for row in (*ROWS, *UNSEEN)]
    lens = asked.lens("bert-classifier", prompts=jsonl(tmp_path / "rows.jsonl", rows[:3]), components="heads:0,mlp")
    done = asked.prune(asked.of(lens), 0.5, tmp_path / "pruned", heldout=jsonl(tmp_path / "unseen.jsonl", rows[3:]))
    assert done.written["value"] == pytest.approx(chosen(done, 0.5).train, abs=1e-4)


MISTAKES = [
    ({"ablation": "mean"}, {}, ["ablation: 'mean'", "cannot be expressed in weights", "zero-rescale"]),
    ({"positions": "last"}, {}, ["positions: 'last'", "run again with positions all"]),
    ({}, {"heldout": None}, ["heldout: is required", "give a file"]),
    ({}, {"heldout": "nowhere.jsonl"}, ["heldout: 'nowhere.jsonl' does not exist"]),
    ({}, {"heldout": "ROWS"}, ["heldout:", "has 0 prompts that the run did not see", "give at least two"]),
    ({}, {"keep": 0.01}, ["keep: 0.01 keeps 0 of 6 components"]),
    ({}, {"keep": 1.0}, ["keep: 1.0 keeps 6 of 6 components"]),
    ({}, {"keep": 0.9, "per_layer": True}, ["keep: 0.9 keeps 6 of 6 components"]),
    ({}, {"folder": "full"}, ["output:", "exists and is not empty", "name a new folder"]),
    ({}, {"folder": "full/file"}, ["output:", "exists and is not empty"]),
    ({}, {"folder": "full/file/deeper"}, ["output:", "cannot be written", "name a folder that you may write to"]),
    ({}, {"folder": "x" * 300}, ["output:", "cannot be written (File name too long)"]),
]


@pytest.mark.parametrize(("options", "told", "parts"), MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(asked, tmp_path, options, told, parts):
    run_id = asked.run(**options)
    kept = asked.prunings(run_id)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    folder = tmp_path / told["folder"] if "folder" in told else tmp_path / "new"
    told = {**told, "folder": folder, "heldout": asked.rows if told.get("heldout") == "ROWS" else told.get("heldout", "")}
    with pytest.raises(raysp.UserError) as caught:
        asked.prune(run_id, **told)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/file"]
    assert asked.prunings(run_id) == kept


def test_a_folder_that_cannot_be_made_is_a_line_too(asked):
    with pytest.raises(raysp.UserError, match="output: '/proc/raysp/pruned' cannot be written"):
        asked.prune(asked.run(), folder=Path("/proc/raysp/pruned"))


def test_experts_have_no_weights_that_a_block_ends_with(asked, tmp_path):
    """Blocks of a mixture of experts can be ablated, and are in no one place where they could be taken out."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    config = MixtralConfig(vocab_size=VOCABULARY, initializer_range=0.3, max_position_embeddings=64, **small)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "experts")
    byte_tokenizer().save_pretrained(tmp_path / "experts")
    run_id = asked.of(asked.lens(components="blocks").model_copy(update={"model": str(tmp_path / "experts")}))
    with pytest.raises(raysp.UserError, match=r"output: .* without L0 block: .* experts"):
        asked.prune(run_id, folder=tmp_path / "pruned")
    assert asked.prune(run_id).written is None


def test_runs_of_other_lenses_have_no_parts_of_a_model(asked):
    feature = raysp.FeatureLens(model=asked.model("llama"), prompt="Her acting never fails", target=" not", dtype="float32", device="cpu")
    for lens in (feature, raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=3)):
        with pytest.raises(raysp.UserError, match=f"uses the {lens.kind} lens, but only parts of a model can be pruned"):
            asked.prune(asked.of(lens))


def test_an_unfinished_run_is_to_be_finished_first(asked):
    def stop(progress):
        if progress.phase == "validate":
            raise KeyboardInterrupt

    spec = raysp.RunSpec(lens=asked.lens(components="heads"), explorer=raysp.Singles(budget=30), local=True, store=str(asked.store))
    with pytest.raises(raysp.InterruptedRunError, match="raysp resume halved"):
        raysp.run(spec, watch=stop, run_id="halved")
    with pytest.raises(raysp.UserError, match="run: 'halved' is interrupted; finish it first: raysp resume halved"):
        asked.prune("halved")


def test_a_run_whose_prompts_have_changed_is_to_be_asked_again(asked, tmp_path):
    rows = jsonl(tmp_path / "rows.jsonl", ROWS)
    run_id = asked.run(prompts=rows)
    jsonl(tmp_path / "rows.jsonl", [*ROWS[:2], {**ROWS[2], "prompt": "Another letter arrived on Monday"}])
    with pytest.raises(raysp.UserError, match=r"asked a model or prompts that have changed since \(prompts\); run it again"):
        asked.prune(run_id)
    assert asked.prunings(run_id) == []


def test_a_run_made_in_another_dtype_says_so(asked):
    """As that of a machine whose auto is bfloat16, on one whose auto is float32."""
    run_id = asked.run(dtype="bfloat16")
    asked.write("UPDATE runs SET spec = replace(spec, 'bfloat16', 'float32') WHERE run_id = ?", run_id)
    with pytest.raises(raysp.UserError, match=r"dtype \(bfloat16 in the run, float32 here\); run it again with --dtype float32"):
        asked.prune(run_id)


def test_one_prompt_needs_others_to_be_judged_by(asked):
    lens = asked.lens(prompts=None, **ROWS[0])
    run_id = asked.of(lens)
    with pytest.raises(raysp.UserError, match="heldout: is required"):
        asked.prune(run_id, heldout=None)
    assert {row.prompts for row in asked.prune(run_id).rows} == {len(UNSEEN)}


def test_an_accuracy_is_of_the_same_kind_on_held_out_prompts(asked):
    run_id = asked.run(value="accuracy")
    bare = jsonl(asked.folder / "bare.jsonl", [{name: row[name] for name in ("prompt", "target")} for row in UNSEEN])
    with pytest.raises(raysp.UserError, match=r"heldout foil: is missing in some prompts; give every prompt a foil, as in the run"):
        asked.prune(run_id, heldout=bare)
    rows = jsonl(asked.folder / "bare_rows.jsonl", [{name: row[name] for name in ("prompt", "target")} for row in ROWS])
    with pytest.raises(raysp.UserError, match="the run's prompts have none"):
        asked.prune(asked.run(value="accuracy", prompts=rows))


def test_margins_say_whether_the_written_model_is_the_one_that_was_measured(asked, tmp_path):
    """An accuracy moves by a prompt where a margin moves by nothing."""
    accuracy, margin = (build_game(asked.lens(value=value)) for value in ("accuracy", "logit_diff"))
    masks = np.random.default_rng(0).random((8, margin.n)) < 0.5
    graded = accuracy.reading.graded().by_prompt(accuracy.mask_tree, masks)
    np.testing.assert_allclose(graded, margin.by_prompt(masks), atol=1e-5)
    assert np.array_equal(accuracy.by_prompt(masks), graded > 0)
    done = asked.prune(asked.run(value="accuracy"), folder=tmp_path / "pruned")
    assert done.written["value"] == chosen(done, 0.5).train


def test_equal_shares_of_layers_are_compared_once(asked):
    done = asked.prune(asked.run(), 0.66, per_layer=True)
    assert len({row.mask.tobytes() for row in done.rows if row.method == "top_singles"}) == len({row.keep for row in done.rows})


def test_a_written_classifier_has_the_padding_token_that_it_had(asked, tmp_path):
    lens = asked.lens("llama-classifier", prompts=jsonl(tmp_path / "rows.jsonl", [{"prompt": row["prompt"], "target": "0", "foil": "1"} for row in ROWS]))
    done = asked.prune(
        asked.of(lens),
        folder=tmp_path / "pruned",
        heldout=jsonl(tmp_path / "u.jsonl", [{"prompt": row["prompt"], "target": "0", "foil": "1"} for row in UNSEEN]),
    )
    before, after = (
        json.loads((Path(place) / "config.json").read_text()).get("pad_token_id") for place in (asked.model("llama-classifier"), done.written["folder"])
    )
    assert before == after
