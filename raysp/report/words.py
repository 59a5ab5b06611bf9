"""Phrases and sentences of the reports, and numbers in them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raysp.report.numbers import number
from raysp.report.readings import both
from raysp.runs.singles import Single, averaged

KINDS = {
    "synergy": "they work only together",
    "redundancy": "each covers for the others",
    "additive": "they act apart",
}
VALUES = {
    "logit": "logit of the target",
    "logit_diff": "logit of the target − logit of the foil",
    "logprob": "log-probability of the target",
    "logprob_mean": "mean log-probability of the target's tokens",
    "logprob_diff": "log-probability of the target − that of the foil",
    "prob": "probability of the target",
    "loss": "loss on the target",
    "class_logit": "logit of the class",
    "kl": "KL divergence from the intact model (nats)",
    "accuracy": "share of prompts answered correctly",
    "margin": "log-probability of the answer − that of the foil",
    "class_margin": "log-probability of the right label − that of the best other one",
}
ABLATIONS = {
    "remove": "left out of the prompt",
    "mask": "replaced by the mask token",
    "replace": "replaced by a fixed text",
    "attention": "masked in attention",
    "zero": "embedded as zeros",
    "mean": "embedded as the mean",
}
PART_ABLATIONS = {
    "zero": "set to zero",
    "zero-rescale": "set to zero while the rest of its layer is scaled up",
    "mean": "replaced by its mean over reference prompts",
    "resample": "replaced by its value on another prompt",
    "patch": "replaced by its value on the counterfactual prompt",
    "clamp": "held at a fixed value",
}
"""How a part of a model is ablated; `ABLATIONS` is about parts of a prompt."""
PARTS = {"head": ("attention head", "attention heads"), "mlp": ("MLP", "MLPs"), "block": ("block", "blocks"), "neurons": ("neuron group", "neuron groups")}
METRICS = {
    "lds": "rank correlation with retraining on unseen subsets (LDS)",
    "lds_floor": "the same with components shuffled: the level of chance",
    "ceiling_halves": "correlation between retrainings from two halves of the seeds",
    "ceiling_averaged": "correlation between two means over all seeds",
    "ceiling_attainable": "attainable by a method that knows the expected outputs",
    "leave_one_out": "rank correlation with leave-one-out retraining",
    "leave_one_out_pearson": "correlation with leave-one-out retraining",
    "mislabel_auc": "mislabelled examples found by harm (AUC)",
    "mislabel_auc_own_label": "the same, by harm to queries of the same label (AUC)",
    "brittleness_drop": "drop of the output without the most helpful components",
    "flip_rate": "share of correct answers that turn wrong without the most helpful components",
}
"""Scores of data attribution methods."""
INDICES = {
    "bii": "Banzhaf interaction, the mean joint effect over all contexts",
    "wbii": "weighted Banzhaf interaction, the mean joint effect over contexts that keep as many components as the masks measured",
    "sii": "Shapley interaction",
    "stii": "Shapley–Taylor interaction",
    "fbii": "faithful Banzhaf interaction",
    "fsii": "faithful Shapley interaction",
    "mobius": "Möbius coefficient, what the set adds to its subsets starting from nothing",
    "fourier": "Fourier coefficient, that of the parity of the set",
    "additivity": "measured deviation from additivity",
}
ADDING = frozenset({"bii", "wbii", "sii", "stii", "fbii", "fsii", "mobius"})
"""Indices that measure the joint effect of adding the components of a set."""
MEASURED = {
    "removed": "measured by exact ablation",
    "surrogate": "estimated by the surrogate",
    "lasso": "estimated by a LASSO on random ablations",
}
"""How single effects were obtained."""
TASKS = {
    "ioi": "indirect object identification (ioi)",
    "facts": "recall of facts",
    "greater-than": "greater-than comparison of years",
    "induction": "induction",
}
UNFINISHED = {
    "running": "This run is not finished: this page shows what is stored so far.",
    "interrupted": "This run was interrupted. Its evaluations are stored, and raysp resume continues from them.",
    "failed": "This run failed.",
}
READINGS = {
    "feature": ("at this input", "around this input"),
    "mechanistic": ("in the intact model", "around the intact model"),
    "data": ("with the full training set", "around the full training set"),
}
"""For each lens what the reading at the intact input is called, and predictions close to it; a function has those of `feature`."""
#: Gain in held-out R² below which interactions do not help.
WORTHWHILE = 0.01


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return "–" if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A duration in seconds, milliseconds or minutes."""
    if not seconds:
        return "–"
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def ratio(value: float | None) -> str:
    """An R² with two digits."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}".replace("-", "−")


def question(run: Mapping[str, Any], kinds: Sequence[str] = ()) -> str:
    """The question of the run as a sentence; `kinds` are the kinds of components where they are parts of a model."""
    described: Mapping[str, Any] = run["game"]["description"]
    model, target, foil = run.get("model") or described.get("model"), described.get("target"), described.get("foil")
    if of_data(run):
        return f"Which training examples make {model or 'the model'} answer as it does?"
    if mechanistic(run):
        return f"Which {parts(kinds)} of {model or 'the model'} {_done(described)}?"
    if model and target and foil:
        return f"Why does {model} say {quoted(target)} rather than {quoted(foil)}?"
    if model and target:
        return f"Why does {model} say {quoted(target)}?"
    if model:
        return f"What makes {model} answer as it does?"
    named = described.get("name")
    known = f" of {named}" if named and not str(named).startswith("anonymous-") else ""
    return f"Which of the {run['n']} components{known} matter, alone and together?"


def mechanistic(run: Mapping[str, Any]) -> bool:
    """Whether the components are parts of a model."""
    return run["lens"] == "mechanistic"


def of_data(run: Mapping[str, Any]) -> bool:
    """Whether the components are parts of a training set."""
    return run["game"]["description"].get("lens") == "data"


def what_is_trained(run: Mapping[str, Any], queries: int, examples: int) -> str:
    """A sentence or two about the training set and the recipe."""
    described: Mapping[str, Any] = run["game"]["description"]
    recipe: Mapping[str, Any] = described.get("recipe") or {}
    made = f"{count(examples)} examples in {count(run['n'])} components" if examples != run["n"] else f"{count(examples)} examples"
    told = f"{made}, {count(queries)} {'query' if queries == 1 else 'queries'}. A component is ablated by training an adapter without its examples."
    if recipe:
        layers: Sequence[int] = recipe["layers"]
        told += (
            f" LoRA of rank {recipe['rank']} on {', '.join(recipe['modules'])} of {_layers(layers)}, {recipe['epochs']} epochs in batches of "
            f"{recipe['batch_size']}, learning rate {recipe['learning_rate']:g}."
        )
    seeds = described.get("seeds") or 1
    return told + (f" Each output is the mean of {seeds} trainings from different seeds." if seeds > 1 else "")


def _layers(layers: Sequence[int]) -> str:
    first, last = min(layers), max(layers)
    if first == last:
        return f"layer {first}"
    return f"layers {first} to {last}" if last - first + 1 == len(layers) else f"layers {_listed(list(layers))}"


def parts(kinds: Sequence[str], number: int = 2) -> str:
    """What components of these kinds are called together."""
    one, several = PARTS.get(kinds[0], ("component", "components")) if len(kinds) == 1 else ("component", "components")
    return one if number == 1 else several


def _done(described: Mapping[str, Any]) -> str:
    """The predicate of a question about parts of a model: giving one answer rather than another, or solving a task."""
    prompts: Sequence[Mapping[str, Any]] = described.get("prompts") or ()
    target, foil = (prompts[0].get(key) or described.get(key) for key in ("target", "foil")) if len(prompts) == 1 else (None, None)
    if target:
        return f"make it say {quoted(target)}" + (f" rather than {quoted(foil)}" if foil else "")
    if task := described.get("task"):
        return f"solve the task {TASKS.get(str(task), str(task))}"
    return f"matter for its answers to {len(prompts)} prompts" if len(prompts) > 1 else "matter for its answer"


def what_is_ablated(run: Mapping[str, Any], kinds: Sequence[str], layers: Sequence[int]) -> str:
    """A sentence or two about which parts of a model are ablated, how and where; `layers` are those of the parts, in any order."""
    described: Mapping[str, Any] = run["game"]["description"]
    of = f" of {described['layers']}" if described.get("layers") else ""
    first, last = min(layers), max(layers)
    where = f"layer {first}{of}" if first == last else f"layers {first} to {last}{of}"
    positions = described.get("positions") or "all"
    at = {"all": "at all positions", "last": "at the last position"}.get(str(positions), f"at positions {_listed(positions)}")
    several = f" Values are means over {count(len(described['prompts']))} prompts." if len(described.get("prompts") or ()) > 1 else ""
    return f"{run['n']} {parts(kinds, run['n'])} in {where} (counted from 0). An ablated {parts(kinds, 1)} is {ablation_in_words(run)}, {at}.{several}"


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values) if isinstance(values, list | tuple) else str(values)


def value_in_words(run: Mapping[str, Any]) -> str:
    """The value in words."""
    kind = run["game"]["description"].get("value")
    if of_data(run):
        return f"{VALUES.get(str(kind), str(kind) if kind else 'output').replace('target', 'answer')}, mean over the queries"
    return VALUES.get(str(kind), str(kind) if kind else "value of the game")


def ablation_in_words(run: Mapping[str, Any]) -> str:
    """How a component is ablated, as a participle."""
    if of_data(run):
        return "left out of the training set"
    kind = run["game"]["description"].get("ablation")
    return (PART_ABLATIONS if mechanistic(run) else ABLATIONS).get(str(kind), str(kind) if kind else "left out of the mask")


def measured_by(method: str | None) -> str:
    """How single effects were obtained, as a participle."""
    return MEASURED.get(method or "removed", f"estimated by {method}")


def index_in_words(index: str) -> str:
    """What an interaction index is, without an article."""
    return INDICES.get(index, "coefficient of the set")


def signs_differ(index: str) -> bool:
    """Whether an index measures by adding components what the deviation measures by removing them."""
    return index in ADDING


def quoted(text: object) -> str:
    """Text in quotation marks, without spaces at its ends."""
    return f"“{str(text).strip() or text}”"


def named(label: str, run: Mapping[str, Any], limit: int) -> str:
    """A component or a set in a sentence: words of a prompt in quotation marks, parts of a model without."""
    return shortened(label, limit) if mechanistic(run) else quoted(shortened(label, limit))


def strongest_set(row: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """A sentence about the strongest interaction."""
    sure = ("exact", "measured exactly") if row["verified"] else ("estimate", "not measured exactly")
    if not row["verified"] and uncertain(row):
        sure = ("estimate", f"predicted; 95% interval {number(row['estimate_lo'])} to {number(row['estimate_hi'])}")
    kind = " is the strongest interaction"
    if row["kind"] in KINDS and row["kind"] != "additive":
        meaning = KINDS[row["kind"]]
        kind += f", a {row['kind']}: {meaning.replace('others', 'other') if row['order'] == 2 else meaning}"
    return f"{named(row['labels'], run, 160)}{kind} (deviation {number(row[sure[0]])}, {sure[1]})."


def uncertain(row: Mapping[str, Any]) -> bool:
    """Whether the deviation of an interaction was predicted, with an interval that has a width."""
    lo, hi = row.get("estimate_lo"), row.get("estimate_hi")
    return lo is not None and hi is not None and hi > lo


def shortened(text: str, limit: int) -> str:
    """Text truncated to a length, with an ellipsis where it was longer."""
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def at_intact(run: Mapping[str, Any]) -> str:
    """What the reading of effects at the intact input is called."""
    return READINGS.get("data" if of_data(run) else str(run["lens"]), READINGS["feature"])[0]


def around_intact(run: Mapping[str, Any]) -> str:
    """Where predictions without a few components are, in words."""
    return READINGS.get("data" if of_data(run) else str(run["lens"]), READINGS["feature"])[1]


def readings_of(run: Mapping[str, Any], singles: Sequence[Single]) -> str:
    """What the single effects are: a sentence for each reading, and by which of them they are ranked."""
    ablated = ablation_in_words(run)
    if not singles or not averaged(singles):
        how = measured_by(singles[0].method if singles else None)
        return f"The drop in the value when one component is {ablated} and all others are kept, {how}."
    how = measured_by("lasso" if singles[0].method == "lasso" else "surrogate")
    mean = f"the mean drop in the value when one component is {ablated}, over contexts in which others are too{f', {how}' if any(single.estimated for single in singles) else ''}"
    if not both(singles):
        return f"{mean[0].upper()}{mean[1:]}."
    place = at_intact(run)
    return (
        f"{place[0].upper()}{place[1:]}: the drop in the value when one component is {ablated} and all others are kept, {measured_by('removed')}. "
        f"On average: {mean}. Components are ranked by the average, because one that others cover for looks weak {place}; one that works only together with others may look weak on average."
    )


def strongest_single(single: Single, run: Mapping[str, Any]) -> str:
    """A sentence about the strongest single effect."""
    name, like = named(single.label, run, 80), single.effect
    if single.beside is None:
        return f"The largest single effect is that of {name} ({number(single.effect)})."
    beside = number(single.beside, like=max(abs(like), abs(single.beside)))
    return f"The largest single effect on average is that of {name} ({number(single.effect)}; {beside} {at_intact(run)})."


def near(run: Mapping[str, Any]) -> str | None:
    """How well held-out values around the intact input are predicted, in a few words; None if that is unknown."""
    metrics: Mapping[str, Any] = run.get("metrics") or {}
    r2, singles = metrics.get("r2_near"), metrics.get("r2_near_singles")
    if r2 is None or singles is None:
        return None
    return f"{around_intact(run)}: R² {ratio(r2)} (adding up single effects {ratio(singles)})"


def help_of_interactions(run: Mapping[str, Any]) -> str | None:
    """A sentence if single effects predict as well as interactions do; None otherwise."""
    r2, singles = run.get("r2"), run.get("r2_singles")
    if r2 is None or singles is None or r2 - singles >= WORTHWHILE:
        return None
    metrics: Mapping[str, Any] = run.get("metrics") or {}
    close, added = metrics.get("r2_near"), metrics.get("r2_near_singles")
    figures = f"single effects alone predict held-out ablations as well (R² {ratio(singles)} alone, {ratio(r2)} with interactions)."
    if close is None or added is None or close - added < WORTHWHILE:
        return f"Interactions do not help here: {figures}"
    return (
        f"On average over contexts interactions do not help: {figures} {around_intact(run).capitalize()} they do "
        f"(R² {ratio(added)} adding up single effects, {ratio(close)} with interactions)."
    )


def numeric_noise(noise: Mapping[str, Any]) -> str:
    """The numeric noise of a run's game (its metrics' `numeric_noise`) in a line."""
    beside = "the effects of leaving one out" if noise["scale"] == "leave_one_out" else "the spread of the values"
    told = f"numeric noise in {noise['dtype']}: {noise['noise']:.2g}, {percent(noise['share'])} of {beside}"
    if not (rejected := noise["rejected"]):
        return told
    return f"{told} (in {rejected['dtype']} {percent(max(rejected['share'], rejected['query_share']))})"


def percent(share: float) -> str:
    """A share of one in per cent, two digits."""
    return f"{100 * share:.2g}%"


def assumption(metrics: Mapping[str, Any]) -> str | None:
    """A paragraph on the check of low-impact pairs; None if there was none."""
    pairs = metrics.get("low_pairs")
    if not pairs:
        return None
    of = f" of {metrics['low_pairs_total']:,.0f}" if metrics.get("low_pairs_total") else ""
    share = metrics.get("low_share")
    bound = "" if share is None else " That is all of them." if share == 0 else f" With 95% confidence, at most {share:.0%} of such pairs deviate by more."
    found = (
        f"The search assumes that strong interactions involve at least one component with a strong single effect. To test this, {pairs:.0f}{of} pairs of low-impact "
        f"components were measured exactly. The strongest deviates from additivity by {number(metrics.get('low_largest'), signed=False)}.{bound}"
    )
    missed, bar = metrics.get("low_missed"), metrics.get("bar")
    if missed is None or bar is None:
        return found
    holds = "The assumption holds" if missed <= bar else "The assumption fails"
    return (
        f"{found} {holds}: the answer misses at most {number(missed, signed=False)} there, "
        f"and the weakest interaction worth naming is {number(bar, signed=False)}."
    )
