"""Stores with plausible runs about parts of a model: heads of three layers, of thirty, and heads, MLPs, blocks and neurons together."""

import json

import numpy as np
import pages
import pyarrow as pa

from raysp.game import Component, GameInfo, fingerprint

PROMPTS = [
    {"prompt": f"When {a} and {b} went to the {place}, {b} gave a {thing} to", "target": f" {a}", "foil": f" {b}"}
    for a, b, place, thing in [("Mary", "John", "store", "drink"), ("Tom", "Anna", "park", "ball"), ("Sarah", "Mark", "station", "letter")] * 8
]
ONE = [{"prompt": "The capital of Japan is the city of", "target": " Tokyo", "foil": " Rome"}]


def heads(layers, each=9):
    return [(f"L{layer}H{head}", "head", layer, head) for layer in layers for head in range(each)]


def info(parts, **more):
    description = {
        "lens": "mechanistic", "model": "smollm2-135m", "selection": "heads:12-14", "ablation": "mean", "positions": "all", "value": "logit_diff",
        "prompts": PROMPTS, "task": "ioi", "layers": 30, "heads": 9, **more,
    }  # fmt: skip
    description["components"] = [label for label, *_ in parts]
    components = tuple(Component(i, label, kind, layer=layer, unit=unit) for i, (label, kind, layer, unit) in enumerate(parts))
    return GameInfo(fingerprint(description), components, description)


def spec(game):
    if game.description["lens"] == "feature":
        return pages.spec(game)
    lens = {"kind": "mechanistic", "model": game.description["model"], "components": game.description["selection"]}
    return json.dumps({"lens": lens, "explorer": {"kind": "proxyspex"}, "seed": 0})


def add_run(store, run_id, game, sets, *, seed=0, prunings=False, methods=(), energy=None):
    rng = np.random.default_rng(seed)
    store.start_run(run_id, spec(game), game, lens=game.description["lens"], explorer="proxyspex", seed=0)
    masks = np.unique(rng.random((300, game.n)) < 0.5, axis=0)
    store.add_evaluations(run_id, "explore", masks, rng.normal(size=len(masks)), tokens=900 * len(masks), seconds=len(masks) / 9)
    answer = pages.answer(game.n, sets, rng, r2=0.91, r2_singles=0.68)
    effects = np.array(answer["singles"]["value"].to_pylist())
    checks = {method: 0.8 * effects + rng.normal(0, spread, game.n) for method, spread in methods}
    if "attention_rollout" in checks:
        checks["attention_rollout"] = np.abs(checks["attention_rollout"])
    table = pa.table({
        "method": [method for method in checks for _ in range(game.n)], "component": pa.array(list(range(game.n)) * len(checks), pa.int32()),
        "value": pa.array(np.concatenate([*checks.values(), []]), pa.float64()),
    })  # fmt: skip
    metrics = pages.METRICS | {"cross_checks": {method: {"spearman": 0.93 - 1.1 * spread, "top": 0.8 - 0.4 * spread} for method, spread in methods}}
    reasons = [
        pages.reason("cross_check", f"Cross-check: {method.replace('_', ' ')} ranks single effects with correlation +0.93.", method=method, spearman=0.93)
        for method in checks
    ]
    summary = {
        "value_intact": 2.31, "value_empty": -0.42, "index": "fbii", "r2": 0.91, "r2_lo": 0.88, "r2_hi": 0.93, "r2_singles": 0.68, "verdict": "reliable",
        "reasons": [pages.reason("surrogate_good", "The surrogate predicts well: held-out R² 0.91 on 200 fresh masks.", r2=0.91), *reasons], "metrics": metrics,
        "diagnostics": {"by_layer": energy} if energy else None,
    }  # fmt: skip
    store.finish_run(run_id, "done", summary, pages.surrogate(game.n, answer, masks[::2], 0.7), cross_checks=table, **answer)
    if prunings:
        store.add_prunings(run_id, pruning_rows(game.n, rng))
    return run_id


def pruning_rows(n, rng):
    drops = {"refined": 0.2, "interactions": 0.25, "singles_refined": 0.4, "singles": 0.5, "top_singles": 0.7, "best_of_n": 0.9}
    rows = [{"keep": 1.0, "kept": n, "method": "intact", "train": 2.4, "heldout": 2.31, "lo": 2.1, "hi": 2.5, "prompts": 60, "components": list(range(n))}]
    for keep in (0.8, 0.6, 0.4, 0.2, 0.1):
        for method, drop in drops.items():
            left = 2.3 - 3 * drop * (1 - keep) ** 1.7 + rng.normal(0, 0.05)
            kept = sorted(rng.permutation(n)[: round(keep * n)].tolist())
            told = {"train": left + 0.1, "heldout": left, "lo": left - 0.15, "hi": left + 0.14, "prompts": 60, "components": kept}
            rows.append({"keep": keep, "kept": len(kept), "method": method, **told})
    return pa.Table.from_pylist(rows)


def three_layers(store):
    game = info(heads(range(12, 15)))
    groups = [{"layers": [layer], "linear": 0.6 - 0.1 * i, "within": 0.3, "across": 0.0} for i, layer in enumerate(range(12, 15))]
    energy = {"linear": 0.52, "within": 0.21, "across": 0.27, "groups": groups}
    methods = [("attribution_patching", 0.1), ("integrated_gates", 0.05), ("gradient_x_input", 0.6)]
    sets = pages.some_sets(game.n, np.random.default_rng(8), 20)
    return add_run(store, "three-layers", game, sets, seed=3, prunings=True, methods=methods, energy=energy)


def thirty_layers(store):
    game = info(heads(range(30)), selection="heads", value="accuracy", ablation="zero-rescale")
    energy = {"linear": 0.7, "within": 0.08, "across": 0.22, "groups": [
        {"layers": list(range(at, at + 10)), "linear": 0.5 + at / 100, "within": 0.1, "across": 0.2} for at in (0, 10, 20)
    ]}  # fmt: skip
    return add_run(store, "thirty-layers", game, pages.some_sets(game.n, np.random.default_rng(9), 70), seed=4, prunings=True, energy=energy)


def mixed(store):
    parts = []
    for layer in range(20, 26):
        parts += heads([layer])
        parts += [(f"L{layer} N{at}-{at + 15}", "neurons", layer, at) for at in range(0, 256, 16)] if layer % 2 else []
        parts += [(f"L{layer} MLP", "mlp", layer, None)] + ([(f"L{layer} block", "block", layer, None)] if layer > 22 else [])
    game = info(parts, selection="heads,mlp,neurons", ablation="patch", positions="last", value="logit_diff", prompts=ONE, task=None)
    return add_run(store, "mixed", game, pages.some_sets(game.n, np.random.default_rng(10), 30), seed=5, methods=[("attention_rollout", 0.4)])


def many_neurons(store):
    parts = [(f"L{layer} N{at}", "neurons", layer, at) for layer in (3, 4) for at in range(600)]
    game = info(parts, selection="neurons:3-4/0-599", value="kl", ablation="resample", positions=[4, 5], prompts=PROMPTS[:2], task=None)
    return add_run(store, "many-neurons", game, pages.some_sets(game.n, np.random.default_rng(11), 20), seed=6)


def one_layer(store):
    parts = [(f"L12 N{at}-{at + 15}", "neurons", 12, at) for at in range(0, 1536, 16)]
    game = info(parts, selection="neurons:12", value="loss", prompts=ONE, task=None)
    return add_run(store, "one-layer", game, pages.some_sets(game.n, np.random.default_rng(14), 20), seed=9)


def blocks(store):
    game = info([(f"L{layer} block", "block", layer, None) for layer in range(30)], selection="blocks", ablation="zero")
    return add_run(store, "blocks", game, pages.some_sets(game.n, np.random.default_rng(12), 24), seed=7)


def checked_words(store):
    """A run about words with other attributions beside it."""
    game = pages.info(pages.words_of(pages.REVIEW), pages.REVIEW)
    methods = [("gradient_x_input", 0.3), ("integrated_gradients", 0.1), ("attention_rollout", 0.6)]
    return add_run(store, "checked-words", game, pages.some_sets(game.n, np.random.default_rng(15), 10), seed=10, methods=methods)


def wide_heads(store):
    game = info(heads(range(8, 16), 32), selection="heads:8-15", layers=32, heads=32, model="llama-3.1-8b", ablation="clamp", task="induction")
    return add_run(store, "wide-heads", game, pages.some_sets(game.n, np.random.default_rng(13), 60), seed=8, prunings=True)


RUNS = {
    "three-layers": three_layers, "thirty-layers": thirty_layers, "mixed": mixed, "many-neurons": many_neurons, "one-layer": one_layer, "blocks": blocks, "wide-heads": wide_heads,
    "checked-words": checked_words,
}  # fmt: skip
