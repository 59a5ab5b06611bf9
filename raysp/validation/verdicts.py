"""Turn the figures of a validation into a verdict on whether the answer can be trusted, with reasons."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from raysp.explorers.samples import CONSTANT_VALUE

if TYPE_CHECKING:
    from raysp.validation.numeric_noise import NumericNoise

Verdict = Literal["reliable", "use with care", "do not trust"]
Metrics = dict[str, float]
Figures = dict[str, float | int | str]

#: Verdicts from best to worst.
LEVELS: tuple[Verdict, ...] = ("reliable", "use with care", "do not trust")
#: The meaning of each code of a reason. Pages, SQL and programs match codes; sentences may be reworded at any time.
REASON_CODES: dict[str, str] = {
    "constant_value": CONSTANT_VALUE,
    "complete": "Every mask was measured, so the answer is exact.",
    "not_held_out": "No masks were held out, so the surrogate's accuracy is unknown.",
    "surrogate_good": "The surrogate predicts held-out masks well.",
    "surrogate_partial": "The surrogate predicts held-out masks only in part.",
    "surrogate_poor": "The surrogate predicts held-out masks badly.",
    "empty_missed": "The empty input has another value than the masks measured suggest.",
    "near_good": "The surrogate predicts masks around the intact input well.",
    "near_partial": "The surrogate predicts masks around the intact input only in part.",
    "near_poor": "The surrogate predicts masks around the intact input badly.",
    "interactions_harm": "The surrogate predicts worse than single effects alone.",
    "interactions_no_gain": "Single effects alone predict as well as the surrogate does.",
    "estimates_good": "The surrogate's deviations agree with those measured exactly.",
    "estimates_negligible": "The deviations measured exactly are negligible beside the single effects.",
    "estimates_rough": "The surrogate's deviations agree only roughly with those measured exactly.",
    "estimates_wrong": "The surrogate's deviations contradict those measured exactly.",
    "low_impact_clear": "Random pairs of low-impact components hold nothing that the answer misses.",
    "low_impact_missed": "Random pairs of low-impact components hold interactions that the answer misses.",
    "numeric_noise": "Rounding moves values by more than a small part of the effects reported.",
    "cross_check": "Rank correlation of another attribution method with the single effects.",
    "cross_check_missing": "An attribution method that this game or model does not support.",
    "unclassified": "A reason stored before reasons had codes.",
}
#: Held-out R² from which a surrogate is good, and below which it is poor.
GOOD_R2, POOR_R2 = 0.8, 0.5
#: The smallest relevant gain in R² over singles, and the loss beyond which interactions harm.
GAIN, LOSS = 0.01, 0.02
#: Standard deviations of the held-out values by which the empty input's value may miss the prediction without a word.
GOOD_EMPTY = 3.0
#: Mean error of the estimates relative to the mean size of the exact values: acceptable, and useless.
GOOD_ERROR, POOR_ERROR = 0.5, 1.0
#: Size, relative to the strongest single effect, below which interactions and their errors do not matter.
NEGLIGIBLE = 0.02
#: Share of the estimates with the right sign: acceptable, and useless.
GOOD_SIGN, POOR_SIGN = 0.8, 0.6

#: Noise of a difference of values, relative to the typical effect reported: acceptable, and useless.
GOOD_NOISE, POOR_NOISE = 0.1, 0.5


@dataclass(frozen=True)
class NoiseBesideEffects:
    """A game's numeric noise, and the typical sizes of the single effects and deviations from additivity that a run reports (0.0: none)."""

    noise: NumericNoise
    single: float
    deviation: float

    @property
    def relative(self) -> float:
        """Noise of a single effect (a difference of two values) or of a pair's deviation (a sum of four), relative to its typical size: the larger."""
        noise = self.noise.noise
        return max((math.sqrt(2) * noise / self.single) if self.single else 0.0, (2 * noise / self.deviation) if self.deviation else 0.0)


@dataclass(frozen=True)
class Reason:
    """One reason for a verdict: a code of `REASON_CODES`, the figures behind it by name, and a readable sentence. ValueError for an unknown code."""

    code: str
    figures: Figures
    sentence: str

    def __post_init__(self) -> None:
        if self.code not in REASON_CODES:
            raise ValueError(f"unknown reason code {self.code!r}; use one of {', '.join(REASON_CODES)}")

    def row(self) -> dict[str, Any]:
        """The reason as plain data, as in the store and in JSON: keys code, figures, sentence."""
        return asdict(self)


@dataclass
class VerdictBuilder:
    """Builds a verdict: each reason may lower it, and none raises it."""

    level: int = 0
    reasons: list[Reason] = field(default_factory=list)

    def add(self, code: str, figures: Figures, sentence: str, level: int = 0) -> None:
        """Add a reason, and lower the verdict to `level` (an index of `LEVELS`) if it is better than that."""
        self.reasons.append(Reason(code, figures, re.sub(r"(?<![\w-])-(?=\d)", "−", sentence)))
        self.level = max(self.level, level)

    def result(self) -> tuple[Verdict, tuple[Reason, ...]]:
        """The verdict and its reasons."""
        return LEVELS[self.level], tuple(self.reasons)


def verdict(metrics: Metrics, *, constant: bool, complete: bool, screened: bool, noise: NoiseBesideEffects | None = None) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict and its reasons.

    `constant`: the value never changed. `complete`: all masks were measured, and the surrogate reproduces every value. `screened`: the explorer
    considered only components with a strong single effect. `noise`: the numeric noise of a game with a model.
    """
    builder = VerdictBuilder()
    if constant:
        builder.add("constant_value", {}, f"{CONSTANT_VALUE} Check the target, or how components are ablated.", 1)
        if noise is not None:
            _judge_noise(builder, noise)  # rounding may be what makes all values equal
        return builder.result()
    if complete:
        builder.add("complete", {}, "Every mask was measured: the answer is exact.")
    else:
        _judge_surrogate(builder, metrics, screened=screened)
        _judge_near(builder, metrics)
    _judge_estimates(builder, metrics, exact=complete)
    _judge_low_impact(builder, metrics, screened=screened)
    if noise is not None:
        _judge_noise(builder, noise)
    return builder.result()


def _judge_surrogate(builder: VerdictBuilder, metrics: Metrics, *, screened: bool) -> None:
    r2, singles = metrics.get("r2", math.nan), metrics.get("r2_singles", math.nan)
    if math.isnan(r2):
        builder.add("not_held_out", {"heldout": metrics.get("heldout", 0.0)}, "Nothing was held out, so the surrogate's accuracy is unknown.", 1)
        return
    figures = _chosen(metrics, "r2", "r2_lo", "r2_hi", "r2_singles", "heldout")
    scored = f"held-out R² {r2:.2f} (95% interval {metrics['r2_lo']:.2f} to {metrics['r2_hi']:.2f}) on {metrics['heldout']:.0f} fresh masks; single effects alone {singles:.2f}"
    advice = (
        "raise the budget or top_k, or use proxyspex"
        if screened
        else "raise the budget, use fewer and coarser components, or use screen, which measures what it reports"
    )
    if r2 < POOR_R2:
        builder.add("surrogate_poor", figures, f"The surrogate predicts badly: {scored}; {advice}.", 2)
    elif r2 < GOOD_R2:
        builder.add("surrogate_partial", figures, f"The surrogate predicts in part: {scored}; {advice}.", 1)
    else:
        builder.add("surrogate_good", figures, f"The surrogate predicts well: {scored}.")
    _judge_empty(builder, metrics)
    _judge_gain(builder, metrics)


def _judge_empty(builder: VerdictBuilder, metrics: Metrics) -> None:
    missed, spread = abs(metrics.get("empty_missed", 0.0)), metrics.get("heldout_spread", 0.0)
    if missed <= GOOD_EMPTY * spread:
        return
    figures = _chosen(metrics, "empty_missed", "heldout_spread", "r2_lo", "heldout")
    sentence = (
        f"The value of the empty input is {missed:.3g} away from what the other masks suggest ({missed / spread:.1f} standard deviations of the held-out values). "
        "Something that hardly any of these masks shows happens once nearly all components are removed, or all of a few that stand in for each other"
    )
    doubtful = metrics["r2_lo"] < POOR_R2
    advice = f"; if one more mask in {metrics['heldout'] + 1:.0f} shows it, R² is {metrics['r2_lo']:.2f}; raise heldout to find out" if doubtful else ""
    builder.add("empty_missed", figures, f"{sentence}{advice}.", int(doubtful))


def _judge_near(builder: VerdictBuilder, metrics: Metrics) -> None:
    r2 = metrics.get("r2_near", math.nan)
    if math.isnan(r2):
        return
    figures = _chosen(metrics, "r2_near", "r2_near_lo", "r2_near_hi", "r2_near_singles", "near")
    scored = (
        f"R² {r2:.2f} (95% interval {metrics['r2_near_lo']:.2f} to {metrics['r2_near_hi']:.2f}) on {metrics['near']:.0f} fresh masks that remove two to five "
        f"components; adding up single effects {metrics['r2_near_singles']:.2f}"
    )
    if r2 < POOR_R2:
        builder.add("near_poor", figures, f"Around the intact input the surrogate predicts badly: {scored}; rely on the exact values, or use focus intact.", 1)
    elif r2 < GOOD_R2:
        builder.add("near_partial", figures, f"Around the intact input the surrogate predicts in part: {scored}; use focus intact, or raise the budget.", 1)
    else:
        builder.add("near_good", figures, f"Around the intact input the surrogate predicts well: {scored}.")


def _judge_gain(builder: VerdictBuilder, metrics: Metrics) -> None:
    r2, singles = metrics["r2"], metrics["r2_singles"]
    figures = _chosen(metrics, "r2", "r2_singles", "gain", "gain_lo", "gain_hi")
    if r2 < singles - LOSS:
        sentence = f"Interactions make the prediction worse than single effects alone ({r2:.2f} against {singles:.2f}); read the single effects."
        builder.add("interactions_harm", figures, sentence, 1)
    elif metrics["gain"] < GAIN or metrics["gain_lo"] <= 0:
        within = f"{metrics['gain']:+.3f} (95% interval {metrics['gain_lo']:+.3f} to {metrics['gain_hi']:+.3f})"
        sentence = f"Interactions do not help measurably: their gain in R² over single effects alone is {within}."
        builder.add("interactions_no_gain", figures, sentence)


def _judge_estimates(builder: VerdictBuilder, metrics: Metrics, *, exact: bool) -> None:
    checked = metrics.get("checked", 0)
    if not checked or exact:
        return
    error, size, sign = metrics["error"], metrics["exact_size"], metrics["sign_agreement"]
    figures = _chosen(metrics, "checked", "error", "error_lo", "error_hi", "exact_size", "single_size", "sign_agreement")
    if max(error, size) <= NEGLIGIBLE * metrics["single_size"]:
        sentence = (
            f"The {checked:.0f} interactions checked are negligible, as estimated: exact values average {size:.3g}, "
            f"mean error {error:.3g}, the strongest single effect {metrics['single_size']:.3g}."
        )
        builder.add("estimates_negligible", figures, sentence)
        return
    relative = error / size if size > 0 else math.inf
    measured = (
        f"{checked:.0f} interactions measured exactly: mean error {error:.3g} (95% interval {metrics['error_lo']:.3g} to {metrics['error_hi']:.3g}) "
        f"where the exact values average {size:.3g}; {sign:.0%} have the right sign"
    )
    if metrics.get("explored"):
        measured += f" ({metrics['explored']:.0f} of them had been measured before the fit)"
    if relative > POOR_ERROR and sign < POOR_SIGN:
        builder.add(
            "estimates_wrong", figures, f"The estimates around the intact input are wrong: {measured}; use screen, or rely on the exact values alone.", 2
        )
    elif relative > GOOD_ERROR or sign < GOOD_SIGN:
        builder.add("estimates_rough", figures, f"The estimates around the intact input are rough: {measured}; rely on the exact values.", 1)
    else:
        builder.add("estimates_good", figures, f"The estimates hold: {measured}.")


def _judge_low_impact(builder: VerdictBuilder, metrics: Metrics, *, screened: bool) -> None:
    count = metrics.get("low_pairs", 0)
    if not count:
        return
    figures = _chosen(metrics, "low_pairs", "low_pairs_total", "low_largest", "low_missed", "low_share", "bar")
    strongest = f"the strongest deviates by {metrics['low_largest']:.3g}"
    if metrics["low_share"] > 0:
        share = f"with 95% confidence at most {metrics['low_share']:.0%} of such pairs deviate by more"
        bound = f"of {count:.0f} random pairs of low-impact components {strongest}; {share}"
    else:
        bound = f"of all {count:.0f} pairs of low-impact components {strongest}"
    if metrics["low_missed"] <= metrics["bar"]:
        builder.add("low_impact_clear", figures, f"Low-impact components hold no strong pair that the answer misses: {bound}.")
        return
    missed = f"the answer misses {metrics['low_missed']:.3g} there, more than a reported interaction worth naming ({metrics['bar']:.3g})"
    advice = "use proxyspex, a larger top_k, or always_include" if screened else "raise the budget, or screen these components with always_include"
    sentence = f"The assumption that strong interactions involve a high-impact component fails: {bound}; {missed}; {advice}."
    builder.add("low_impact_missed", figures, sentence, 2 if screened else 1)


def _judge_noise(builder: VerdictBuilder, beside: NoiseBesideEffects) -> None:
    noise, relative = beside.noise, beside.relative
    if relative <= GOOD_NOISE and noise.is_small:
        return
    figures: Figures = {
        "dtype": noise.dtype, "noise": noise.noise, "spread": noise.spread, "share": noise.share, "query_share": noise.query_share, "relative": relative,
        "single": beside.single, "deviation": beside.deviation,
    }  # fmt: skip
    what = "effects of leaving one out" if noise.scale == "leave_one_out" else "spread of the values"
    advice = "report fewer, larger effects" if noise.dtype == "float32" else "use --dtype float32"
    sentence = (
        f"Numeric noise in {noise.dtype} is not small beside the effects: one value varies by {noise.noise:.2g}, {_percent(noise.share)} of the {what} ({noise.spread:.2g}), "
        f"and a difference of values by {_percent(relative)} of a typical effect reported; {advice}."
    )
    builder.add("numeric_noise", figures, sentence, 2 if max(relative, noise.share, noise.query_share) > POOR_NOISE else 1)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"


def _chosen(metrics: Metrics, *names: str) -> Figures:
    return {name: metrics[name] for name in names if name in metrics}
