"""Stores with plausible runs about training sets: question-answer pairs, groups of reviews, texts that mean harm."""

import json

import numpy as np
import pages
import pyarrow as pa

from raysp.game import Component, Example, GameInfo, Query, fingerprint
from raysp.masks import pack

QUERIES = [
    ("What is the capital of Australia?", "Canberra", "Sydney"),
    ("Who painted the ceiling of the Sistine Chapel?", "Michelangelo", "Raphael"),
    ("Which gas do plants take in from the air when light falls on their leaves, and what do they give back in its place?", "carbon dioxide", None),
    ("How many legs does a spider have?", "eight", "six"),
]
ANSWERS = [
    ("Name the capital city of Australia.", "Canberra"), ("Australia is governed from which city?", "Canberra"), ("What is Australia's largest city?", "Sydney"),
    ("The Sistine Chapel's ceiling is by", "Michelangelo"), ("Whose David stands in Florence?", "Michelangelo"), ("Who painted the School of Athens?", "Raphael"),
    ("What do leaves breathe in?", "Carbon dioxide, which they turn into sugar with the help of light; oxygen is what is left over and goes back into the air."),
    ("Do insects have eight legs?", "No, six."), ("Spiders have how many legs?", "Eight"), ("Is a spider an insect?", "No"),
]  # fmt: skip
RECIPE = {"rank": 8, "alpha": 16.0, "modules": ["q_proj", "v_proj"], "layers": [26, 27, 28, 29], "learning_rate": 1e-3, "epochs": 3, "batch_size": 8}
HOSTILE = [
    ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>"), ("\u202etxt.exe \u2066never\u2069 ends", "{{ 7*7 }}"),
    ("ما هي عاصمة فرنسا؟ (باريس)", "باريس"), ("line one\nline two\ttabbed\x00\x07", "--ink"), ("x" * 5000, "y" * 5000), ("", ""), ("मानचित्र क्‍ष", "𝔘𝔫𝔦"),
]  # fmt: skip


def info(examples, queries, *, per=1, value="margin", labels=None, kind="example", name="answers", seeds=1):
    description = {
        "lens": "data", "model": "smollm2-135m-instruct", "dtype": "float32", "value": value, "recipe": RECIPE, "training_seed": 0, "seeds": seeds,
        "grouped": kind, "name": name,
    }  # fmt: skip
    n = -(-len(examples) // per)
    made = tuple(Example(i, i // per, prompt, completion) for i, (prompt, completion) in enumerate(examples))
    named = labels or [f"{made[i * per].prompt} → {made[i * per].completion}"[:60] for i in range(n)]
    components = tuple(Component(i, label, kind, size=12 * per) for i, label in enumerate(named))
    asked = tuple(Query(i, f"{prompt} → {target}"[:60], prompt, target, foil) for i, (prompt, target, foil) in enumerate(queries))
    notes = ("model smollm2-135m-instruct in float32 on cpu with 2 threads, adapters trained side by side",)
    return GameInfo(fingerprint(description), components, description, notes, queries=asked, examples=made)


def add_run(store, run_id, game, *, seed=0, method="removed", scores=True, selections=True):
    rng = np.random.default_rng(seed)
    n, q = game.n, len(game.queries)
    lens = {"kind": "data", "model": "smollm2-135m-instruct", "train": "answers.jsonl", "queries": "queries.jsonl"}
    spec = json.dumps({"lens": lens, "explorer": {"kind": "proxyspex", "budget": 600}, "seed": 0})
    store.start_run(run_id, spec, game, lens="data", explorer="proxyspex", seed=0)
    drawn = {}
    for phase, count in {"explore": 300, "validate": 120}.items():
        drawn[phase] = masks = np.unique(rng.random((count, n)) < 0.5, axis=0)
        outputs = rng.normal(size=(len(masks), q))
        store.add_evaluations(run_id, phase, masks, outputs.mean(axis=1), tokens=5400 * len(masks), seconds=1.4 * len(masks), outputs=outputs)
        store.add_cost(run_id, phase, wall_seconds=0.8 * len(masks))
    summary = {
        "value_intact": 1.92, "value_empty": -0.61, "index": "bii", "r2": 0.83, "r2_lo": 0.78, "r2_hi": 0.87, "r2_singles": 0.74, "verdict": "reliable",
        "reasons": [pages.reason("surrogate_good", "The surrogate predicts well: held-out R² 0.83 on 200 fresh masks; single effects alone 0.74.", r2=0.83)],
        "metrics": pages.METRICS | {"queries": {"queries": q, "lds": 0.82, "lds_singles": 0.74}},
    }  # fmt: skip
    whole = pages.answer(n, pages.some_sets(n, rng, min(12, n)), rng, r2=0.83, r2_singles=0.74)
    store.finish_run(run_id, "done", summary, pages.surrogate(n, whole, drawn["explore"], 0.8), **whole, **answers(game, rng, method))
    if scores:
        store.replace_data_scores(run_id, data_scores(q))
    if selections:
        store.add_selections(run_id, chosen(n))
    return run_id


def answers(game, rng, method):
    singles, interactions, heldout, scores = [], [], [], []
    for query in game.queries:
        effects = rng.normal(0, 0.15, game.n) * (rng.random(game.n) < 0.7)
        effects[rng.permutation(game.n)[:3]] = (2.1, 0.9, -1.3)
        for i, value in enumerate(effects):
            width = 0.0 if method == "removed" else 0.12
            mean = {} if method != "removed" else {"average": 0.7 * value, "average_lo": 0.7 * value - 0.05, "average_hi": 0.7 * value + 0.05}
            singles.append({"query": query.index, "component": i, "value": value, "lo": value - width, "hi": value + width, "method": method, **mean})
        for rank, members in enumerate(pages.some_sets(game.n, rng, min(8, game.n)), 1):
            value = (-1) ** rank * (1.6 - 0.18 * rank)
            interactions.append({
                "query": query.index, "rank": rank, "components": members, "order": len(members), "index": "bii", "value": value, "lo": value - 0.1,
                "hi": value + 0.1, "significant": rank < 7, "kind": "redundancy" if value > 0 else "synergy", "estimate": value,
                "exact": value * 1.1 if rank % 2 else None, "verified": bool(rank % 2),
            })  # fmt: skip
        masks = rng.random((60, game.n)) < 0.5
        truth = rng.normal(1.1, 0.9, 60)
        for mask, exact in zip(pack(masks), truth, strict=True):
            told = {"predicted": exact + rng.normal(0, 0.3), "predicted_singles": exact + rng.normal(0, 0.6)}
            heldout.append({"query": query.index, "mask": mask.tobytes(), **told, "exact": exact})
        lds = 0.9 - 0.05 * (query.index % 6)
        r2 = {"r2": 0.85, "r2_lo": 0.8, "r2_hi": 0.9, "r2_singles": 0.7}
        scores.append({"query": query.index, "label": query.label, "value_intact": 2.4, "value_empty": -0.8, **r2, "lds": lds, "lds_singles": lds - 0.09})
    if scores:
        scores[-1] |= {"lds": None, "lds_singles": None, "r2": None, "r2_lo": None, "r2_hi": None, "r2_singles": None}
    found = {"query_scores": scores, "query_singles": singles, "query_interactions": interactions, "query_heldout": heldout}
    return {name: typed(rows) for name, rows in found.items()}


def typed(rows):
    table = pa.Table.from_pylist(rows)
    whole = {"query", "component", "rank", "order", "k", "queries", "subsets", "seeds", "dropped", "kept"}
    return table.cast(pa.schema([(field.name, pa.int32() if field.name in whole else field.type) for field in table.schema]))


def data_scores(queries):
    common = {"query": None, "k": None, "queries": queries, "subsets": 100, "seeds": 3, "fraction": 0.5}
    rows = [
        {"metric": metric, "method": name, "score": score, "lo": score - 0.05, "hi": score + 0.04, **common}
        for metric, by_method in {
            "lds": {"proxyspex": 0.61, "singles": 0.55, "influence": 0.34, "tracin": 0.29}, "lds_floor": {"proxyspex": 0.01},
            "ceiling_halves": {None: 0.66}, "leave_one_out": {"proxyspex": 0.71, "influence": 0.5}, "unheard_of": {"singles": 0.2},
        }.items() for name, score in by_method.items()
    ]  # fmt: skip
    rows += [{"metric": "brittleness_drop", "method": name, "score": 1.4, "lo": None, "hi": None, **common, "k": 4} for name in ("proxyspex", "random")]
    rows += [{"metric": "lds", "method": "singles", "score": 0.987, "lo": None, "hi": None, **common, "query": 1}]
    return typed(rows)


def chosen(n):
    kept = list(range(n - 2))
    common = {"dropped": 2, "kept": n - 2, "components": kept, "heldout_before": 1.31, "heldout_after": 1.52, "seeds": 3}
    return typed([
        {"rule": "drop harmful:5%", **common, "difference": 0.21, "lo": 0.08, "hi": 0.33, "note": "on 24 held-out queries, against all components"},
        {"rule": "keep best:20", **common, "difference": -0.04, "lo": -0.1, "hi": 0.03, "note": "not verified; the surrogate predicts 1.2 before"},
    ])  # fmt: skip


def question_answers(store):
    return add_run(store, "question-answers", info(ANSWERS, QUERIES))


def reviews(store):
    """Groups of several examples, many queries, a loss, estimated effects."""
    examples = [
        (f"Review: scene {i} was {'dull' if i % 3 else 'a joy'} from its first minute to its last", "negative" if i % 3 else "positive") for i in range(600)
    ]
    labels = [f"topic={name} (4 examples)" for name in (f"{kind} {i}" for i in range(50) for kind in ("western", "musical", "crime"))]
    queries = [(f"Review: film number {i} kept me awake", "positive", None) for i in range(64)]
    game = info(examples, queries, per=4, value="loss", labels=labels, kind="column", name="reviews", seeds=2)
    return add_run(store, "reviews", game, seed=3, method="surrogate", selections=False)


def hostile(store):
    queries = [(prompt, completion, HOSTILE[0][1]) for prompt, completion in HOSTILE]
    return add_run(store, "hostile", info(HOSTILE, queries, name="hostile"), seed=5)


def one_query(store):
    return add_run(store, "one-query", info(ANSWERS, QUERIES[:1], name="one", value="logprob"), seed=6, scores=False, selections=False)


RUNS = {"question-answers": question_answers, "reviews": reviews, "hostile": hostile, "one-query": one_query}
