"""Stores with plausible runs in them: six words, forty words, twenty sentences, a function."""

import json

import numpy as np
import pyarrow as pa

from raysp.game import Component, GameInfo, fingerprint
from raysp.sampling.ablations import ablations
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.points import Points
from raysp.spectral.tail import Tail
from raysp.spectral.tail_sum import TailSum
from raysp.store import RunSurrogates
from raysp.validation import Reason

SHORT = "Her acting never fails to impress"
REVIEW = (
    "I went in expecting very little, and although the first half hour drags and the jokes are not exactly new, "
    "her acting never fails to impress and the ending is far from the dull, predictable mess that I had feared it would be."
)
LETTER = [
    "Dear Ms Okafor, thank you for your patience while we looked into the delayed delivery of your order.",
    "Your parcel left our warehouse in Rotterdam on Monday evening.",
    "The carrier first took it to a sorting centre near Antwerp.",
    "From there it should have gone straight to Lille.",
    "Owing to a strike at the border, all lorries were turned back that night.",
    "The parcel was then held for two days without being scanned.",
    "On Thursday our own courier collected it.",
    "He drove it south through the Ardennes rather than along the coast.",
    "The weather was poor, and snow closed two of the mountain roads.",
    "He reached Reims after midnight.",
    "At that point the tracking number was changed by mistake.",
    "For this reason the website showed your parcel as lost.",
    "It never was.",
    "A colleague in our Reims office recognised the label.",
    "She put the parcel on the first train of the morning.",
    "It arrived in Lyon shortly before noon and is waiting for you at the counter of our shop there.",
    "Please bring a document with your photograph.",
    "We have refunded the cost of the delivery.",
    "We have also added a small voucher to your account, which is valid for a year.",
    "With kind regards, and our apologies once more for all the trouble.",
]
HOSTILE = ["<b>bold</b>", "</script><script>alert(1)</script>", "{{", "7*7", "}}", "'\"&amp;", "--ink", "×", "\u2028", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢"]
PHASES = {"explore": 800, "validate": 160}


def words_of(text):
    parts, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        parts.append((word, start, at))
    return parts


def info(parts, source, *, unit="word", lens="feature", target=" positive", foil=" negative", **more):
    description = {"lens": lens, "unit": unit, "dtype": "float32", "ablation": "remove", "value": "logit_diff", "target": target, "foil": foil, **more}
    if source is not None:
        description["input"] = f"Review: {source}\nSentiment:"
    components = tuple(Component(i, label, unit, start, stop, 1 + len(label) // 5) for i, (label, start, stop) in enumerate(parts))
    description["components"] = [component.label for component in components]
    notes = ("model smollm2-135m-instruct in float32 on cpu with 2 threads, packed scoring",)
    return GameInfo(fingerprint(description), components, description, notes, source=source)


def spec(game):
    if game.source is None:
        return json.dumps({"lens": {"kind": "function", "n": game.n, "name": "peaks"}, "explorer": {"kind": "proxyspex"}, "seed": 0})
    lens = {"kind": "feature", "model": "smollm2-135m-instruct", "prompt": game.source, "template": "Review: {prompt}\nSentiment:"}
    return json.dumps({"lens": lens, "explorer": {"kind": "proxyspex", "budget": 800, "max_order": 4}, "seed": 0})


def averaged(singles):
    """Mean effects over contexts beside those at the intact input: the weakest component there is covered for by another, and the strongest on average."""
    mean = 0.8 * singles
    mean[np.argmin(np.abs(singles))] = 1.5 * np.abs(singles).max()
    return mean


def answer(n, sets, rng, *, r2, r2_singles, averages=True):
    singles = rng.normal(0, 0.35, n) * (rng.random(n) < 0.6)
    strong = rng.permutation(n)[: max(2, n // 8)]
    singles[strong] += rng.choice([-1.4, 1.9], len(strong))
    values = np.sort(np.abs(rng.normal(0.2, 0.7, len(sets))))[::-1] * rng.choice([-1, 1], len(sets))
    verified = [i < 5 or i % 3 == 0 for i in range(len(sets))]
    exact = values * rng.normal(1, 0.12, len(sets))
    kinds = ["synergy" if value > 0 else "redundancy" for value in values]
    interactions = pa.table({
        "components": pa.array(sets, pa.list_(pa.int32())), "order": pa.array([len(s) for s in sets], pa.int32()), "index": ["fbii"] * len(sets),
        "value": values, "lo": values - 0.11, "hi": values + 0.11, "significant": np.abs(values) > 0.11, "kind": kinds, "estimate": values * 0.97,
        "exact": pa.array([x if v else None for x, v in zip(exact, verified, strict=True)], pa.float64()), "verified": verified,
    })  # fmt: skip
    checked = [i for i, v in enumerate(verified) if v]
    pairs = [sorted(rng.choice(n, 2, replace=False).tolist()) for _ in range(8)]
    low = rng.normal(0, 0.04, 8)
    measured = np.concatenate([exact[checked], low])
    validations = pa.table({
        "components": pa.array([sets[i] for i in checked] + pairs, pa.list_(pa.int32())), "role": ["top"] * len(checked) + ["low_impact"] * 8,
        "estimate": np.concatenate([values[checked] * 0.97, low * 0]), "exact": measured,
        "kind": [kinds[i] for i in checked] + ["additive"] * 8,
    })  # fmt: skip
    truth = rng.normal(1.2, 1.1, 200)
    heldout = pa.table({
        "exact": truth, "predicted": truth + rng.normal(0, 1.1 * np.sqrt(max(1 - r2, 0)), 200),
        "predicted_singles": truth + rng.normal(0, 1.1 * np.sqrt(max(1 - r2_singles, 0)), 200),
    })  # fmt: skip
    table = pa.table({"component": pa.array(range(n), pa.int32()), "value": singles, "lo": singles, "hi": singles, "method": ["removed"] * n})
    if averages:
        mean = averaged(singles)
        for name, column in (("average", mean), ("average_lo", mean - 0.07), ("average_hi", mean + 0.07)):
            table = table.append_column(name, pa.array(column))
    return {"singles": table, "interactions": interactions, "validations": validations, "heldout": heldout}


def surrogate(n, found, fitted, keep_probability=0.5, terms=None):
    """What a run stores beside such an answer: its single effects and deviations as one function of masks, or these terms."""
    if terms:
        return RunSurrogates(FourierSurrogate.from_dict(n, terms), keep_probability, fitted)
    singles = {(i,): value for i, value in zip(found["singles"]["component"].to_pylist(), found["singles"]["value"].to_pylist(), strict=True)}
    sets = zip(found["interactions"]["components"].to_pylist(), found["interactions"]["estimate"].to_pylist(), strict=True)
    value = FourierSurrogate.from_deviations(n, 2.31, singles | {tuple(members): estimate for members, estimate in sets}).rebased(keep_probability)
    return RunSurrogates(value, keep_probability, fitted)


def extended(stored, centres=(40, 90), halves=30, seed=13):
    """The same with two tails in other bases around so many masks, and with points: the ends, single ablations, and masks that keep half."""
    rng, n, value = np.random.default_rng(seed), stored.value.n, stored.value
    drawn = [stored.fitted[:count] for count in centres]
    tails = tuple(
        TailSum(Tail(1.7, reach, rng.dirichlet(np.ones(n)), keep), masks, rng.normal(0, 2, len(masks)))
        for reach, keep, masks in ((1.5, 0.5, drawn[0]), (4.0, 0.8, drawn[1]))
    )
    masks = np.concatenate([ablations(n, [(), *((i,) for i in range(n))]), np.zeros((1, n), dtype=bool), stored.fitted[-halves:][:halves]])
    points = Points(masks, rng.normal(0, 1, len(masks)), np.where(np.arange(len(masks)) % 2, rng.normal(size=len(masks)), np.nan), np.full(len(masks), 0.5))
    whole = value.coefficients + sum(tail.coefficients(value.sets, value.keep_probability) for tail in tails)
    return RunSurrogates(FourierSurrogate(value.sets, whole, None, value.keep_probability, points, tails), stored.keep_probability, stored.fitted)


def some_sets(n, rng, count):
    found = {tuple(sorted(rng.choice(n, size, replace=False).tolist())) for size in (2, 2, 2, 3, 2, 4 if n > 6 else 2) * count}
    return [list(each) for each in list(found)[:count]]


METRICS = {
    "low_pairs": 20.0, "low_pairs_total": 253.0, "low_largest": 0.0712, "low_missed": 0.0712, "low_share": 0.139, "weakest_top": 0.21, "bar": 0.24,
    "checked": 18.0, "error": 0.06, "gain": 0.21, "gain_lo": 0.17,
}  # fmt: skip


def reason(code, sentence, **figures):
    """A reason of a verdict as runs store it."""
    return Reason(code, figures, sentence).row()


#: How well a surrogate predicts around the intact input.
NEAR = {"near": 64.0, "r2_near": 0.88, "r2_near_lo": 0.84, "r2_near_hi": 0.91, "r2_near_singles": 0.6}


def add_run(store, run_id, game, sets, *, seed=0, r2=0.93, r2_singles=0.71, verdict="reliable", name=None, set_name=None, terms=None, averages=True, more=None):
    rng = np.random.default_rng(seed)
    store.start_run(run_id, spec(game), game, lens=game.description["lens"], explorer="proxyspex", seed=0, name=name, set_name=set_name)
    drawn = {}
    for phase, count in PHASES.items():
        drawn[phase] = masks = np.unique(rng.random((count, game.n)) < 0.5, axis=0)
        store.add_evaluations(run_id, phase, masks, rng.normal(size=len(masks)), tokens=61 * len(masks), seconds=len(masks) / 90)
        store.add_cost(run_id, phase, wall_seconds=len(masks) / 70)
    gain = r2 - r2_singles
    reasons = [
        reason(
            "surrogate_good",
            f"The surrogate predicts well: held-out R² {r2:.2f} (95% interval {r2 - 0.03:.2f} to {r2 + 0.02:.2f}) on 200 fresh masks; single effects alone {r2_singles:.2f}.",
            r2=r2,
        ),
        *(
            []
            if gain >= 0.01
            else [reason("interactions_no_gain", f"Interactions do not help: single effects alone predict as well (gain in R² {gain:+.3f}).", gain=gain)]
        ),
        reason(
            "estimates_good",
            "The estimates hold: 18 interactions measured exactly: mean error 0.06 (95% interval 0.04 to 0.08) where the exact values average 0.71; 100% have the right sign.",
            checked=18.0,
        ),
        reason(
            "low_impact_clear",
            "Low-impact components hold no strong pair that the answer misses: of 20 random pairs of low-impact components the strongest deviates by 0.0712; with 95% confidence at most 14% of such pairs deviate by more.",
            low_pairs=20.0,
        ),
    ]
    summary = {
        "value_intact": 2.31, "value_empty": -0.42, "index": "fbii", "r2": r2, "r2_lo": r2 - 0.03, "r2_hi": r2 + 0.02, "r2_singles": r2_singles,
        "verdict": verdict, "reasons": reasons, "metrics": METRICS | (NEAR if averages else {}),
    }  # fmt: skip
    found = answer(game.n, sets, rng, r2=r2, r2_singles=r2_singles, averages=averages)
    stored = surrogate(game.n, found, drawn["explore"], 0.5 if more is None else 0.7, terms=terms)
    store.finish_run(run_id, "done", summary, stored if more is None else extended(stored, **more), **found)
    return run_id


def six_words(store):
    sets = [[2, 3], [2, 3, 5], [1, 5], [0, 1], [4, 5], [2, 5]]
    return add_run(store, "six-words", info(words_of(SHORT), SHORT), sets, name="demo", seed=4)


def forty_words(store):
    game = info(words_of(REVIEW), REVIEW)
    return add_run(store, "forty-words", game, some_sets(game.n, np.random.default_rng(3), 45), seed=1, verdict="use with care")


def with_tails(store):
    """A run whose surrogate has terms in the basis of P(keep) 0.7, two tails, and points."""
    game = info(words_of(REVIEW), REVIEW)
    return add_run(store, "with-tails", game, some_sets(game.n, np.random.default_rng(3), 20), seed=21, more={})


def many_words(store, words=300, centres=(60, 60), **options):
    """A run of many words with two tails around the same masks, and points that are single ablations."""
    text = " ".join(f"{word}{i}" for i, word in zip(range(words), SHORT.split() * words, strict=False))
    game = info(words_of(text), text)
    return add_run(store, "many-words", game, [[0, 1], [7, 9], [1, 2, 3]], seed=22, more={"centres": centres, "halves": 0}, **options)


def sentences(store, repeat=1):
    source = " ".join(LETTER * repeat)
    parts, at = [], 0
    for sentence in LETTER * repeat:
        parts.append((sentence, at, at + len(sentence)))
        at += len(sentence) + 1
    game = info(parts, source, unit="sentence", target=" Lyon", foil=" Lille", question="In which city can I collect my parcel?")
    return add_run(store, "sentences", game, some_sets(game.n, np.random.default_rng(5), 14), seed=2, r2=0.88, r2_singles=0.884)


def large(store, words=2000, count=10_000):
    """As many words and interactions as a page must hold."""
    rng = np.random.default_rng(7)
    text = " ".join(f"{word}{i % 97}" for i, word in zip(range(words), SHORT.split() * words, strict=False))
    game = info(words_of(text), text)
    sets = [sorted(rng.choice(60, size, replace=False) + 60 * rng.integers(words // 60)) for size in rng.integers(2, 5, 2 * count)]
    sets = [list(map(int, members)) for members in {tuple(members): None for members in sets}][:count]
    return add_run(store, "large", game, sets, seed=11, terms={tuple(members): 0.1 for members in sets if len(members) < 4})


def function(store, n=30):
    game = info([(f"x{i}", None, None) for i in range(n)], None, unit="argument", lens="function", target=None, foil=None, name="peaks", value=None)
    return add_run(
        store, "function", game, some_sets(n, np.random.default_rng(6), 12), seed=3, r2=0.41, r2_singles=0.22, verdict="do not trust", averages=False
    )


def hostile(store):
    text = " ".join(HOSTILE)
    game = info(words_of(text), text, target="</script><img src=x onerror=alert(2)>", foil="<i>{{ 7*7 }}</i>")
    return add_run(store, "hostile", game, [[0, 1], [1, 2, 5], [6, 7]], name="<u>name</u>")


def example_set(store, count=7):
    ids = []
    for i in range(count):
        text = f"{SHORT} in scene number {i}" if i % 2 else f"The plot of part {i} is not bad at all"
        game = info(words_of(text), text)
        sets = some_sets(game.n, np.random.default_rng(i), 4)
        verdict = ("reliable", "reliable", "use with care")[i % 3]
        ids.append(add_run(store, f"set-{i}", game, sets, seed=i, r2=0.95 - 0.04 * i, r2_singles=0.7 - 0.03 * i, verdict=verdict, set_name="reviews"))
    return ids
