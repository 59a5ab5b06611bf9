"""From figures to words: whether an answer can be trusted, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["reliable", "use with care", "do not trust"]
Metrics = dict[str, float]

#: Verdicts from best to worst.
LEVELS: tuple[Verdict, ...] = ("reliable", "use with care", "do not trust")
#: Held-out R² that is good, and that is poor.
GOOD_R2, POOR_R2 = 0.8, 0.5
#: Gain in R² over singles that counts, and loss that disqualifies.
GAIN, LOSS = 0.01, 0.02
#: Mean error of the estimates, relative to the mean size of the exact values: acceptable, and useless.
GOOD_ERROR, POOR_ERROR = 0.5, 1.0
#: Size, relative to the strongest single effect, below which interactions and their errors are nothing to worry about.
NEGLIGIBLE = 0.02
#: Share of the estimates with the right sign: acceptable, and useless.
GOOD_SIGN, POOR_SIGN = 0.8, 0.6


@dataclass
class VerdictBuilder:
    """A verdict in the making: it only ever gets worse, and each step says why."""

    level: int = 0
    reasons: list[str] = field(default_factory=list)

    def say(self, reason: str, level: int = 0) -> None:
        """Add a reason, and the level that it asks for."""
        self.reasons.append(reason)
        self.level = max(self.level, level)


def verdict(metrics: Metrics, *, constant: bool, complete: bool, screened: bool) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and its reasons.

    `constant`: no value ever changed. `complete`: every mask there is was measured, and the surrogate reproduces them all. `screened`: the
    explorer looked only at components with a strong single effect.
    """
    opinion = VerdictBuilder()
    if constant:
        opinion.say("The value does not change whatever is removed: there is nothing to attribute; check the target, or how components are ablated.", 1)
        return LEVELS[opinion.level], tuple(opinion.reasons)
    if complete:
        opinion.say("Every mask was measured: the answer is exact.")
    else:
        _say_r2(opinion, metrics, screened=screened)
    _say_error(opinion, metrics, exact=complete)
    _say_assumption(opinion, metrics, screened=screened)
    return LEVELS[opinion.level], tuple(opinion.reasons)


def _say_r2(opinion: VerdictBuilder, metrics: Metrics, *, screened: bool) -> None:
    r2, singles = metrics.get("r2", math.nan), metrics.get("r2_singles", math.nan)
    if math.isnan(r2):
        opinion.say("Nothing was held out, so how well the surrogate predicts is not known.", 1)
        return
    scored = f"held-out R² {r2:.2f} (95 % interval {metrics['r2_lo']:.2f} to {metrics['r2_hi']:.2f}) on {metrics['heldout']:.0f} fresh masks; single effects alone {singles:.2f}"
    mend = (
        "raise the budget or top_k, or use proxyspex"
        if screened
        else "raise the budget, take fewer and coarser components, or use screen, which measures what it reports"
    )
    if r2 < POOR_R2:
        opinion.say(f"The surrogate predicts badly: {scored}; {mend}.", 2)
    elif r2 < GOOD_R2:
        opinion.say(f"The surrogate predicts in part: {scored}; {mend}.", 1)
    else:
        opinion.say(f"The surrogate predicts well: {scored}.")
    if r2 < singles - LOSS:
        opinion.say(f"Interactions make the prediction worse than single effects alone ({r2:.2f} against {singles:.2f}); read the single effects.", 1)
    elif metrics["gain"] < GAIN or metrics["gain_lo"] <= 0:
        opinion.say(f"Interactions do not help: single effects alone predict as well (gain in R² {metrics['gain']:+.3f}).")


def _say_error(opinion: VerdictBuilder, metrics: Metrics, *, exact: bool) -> None:
    checked = metrics.get("checked", 0)
    if not checked or exact:
        return
    error, size, sign = metrics["error"], metrics["exact_size"], metrics["sign_agreement"]
    if max(error, size) <= NEGLIGIBLE * metrics["single_size"]:
        opinion.say(
            f"The {checked:.0f} interactions checked are negligible, and estimated so: exact values average {size:.3g}, "
            f"mean error {error:.3g}, the strongest single effect {metrics['single_size']:.3g}."
        )
        return
    relative = error / size if size > 0 else math.inf
    figures = (
        f"{checked:.0f} interactions measured exactly: mean error {error:.3g} (95 % interval {metrics['error_lo']:.3g} to {metrics['error_hi']:.3g}) "
        f"where the exact values average {size:.3g}; {sign:.0%} have the right sign"
    )
    if relative > POOR_ERROR and sign < POOR_SIGN:
        opinion.say(f"The estimates around the intact input are wrong: {figures}; use screen, or rely on the exact values alone.", 2)
    elif relative > GOOD_ERROR or sign < GOOD_SIGN:
        opinion.say(f"The estimates around the intact input are rough: {figures}; rely on the exact values.", 1)
    else:
        opinion.say(f"The estimates hold: {figures}.")


def _say_assumption(opinion: VerdictBuilder, metrics: Metrics, *, screened: bool) -> None:
    count = metrics.get("low_pairs", 0)
    if not count:
        return
    strongest = f"the strongest deviates by {metrics['low_largest']:.3g}"
    if metrics["low_share"] > 0:
        share = f"with 95 % confidence at most {metrics['low_share']:.0%} of such pairs deviate by more"
        bound = f"of {count:.0f} random pairs of low-impact components {strongest}; {share}"
    else:
        bound = f"of all {count:.0f} pairs of low-impact components {strongest}"
    if metrics["low_missed"] <= metrics["bar"]:
        opinion.say(f"Low-impact components hold no strong pair that the answer misses: {bound}.")
        return
    against = f"the answer misses {metrics['low_missed']:.3g} there, more than a reported interaction worth naming ({metrics['bar']:.3g})"
    mend = "use proxyspex, a larger top_k, or always_include" if screened else "raise the budget, or screen these components with always_include"
    opinion.say(f"The assumption that strong interactions involve a high-impact component fails: {bound}; {against}; {mend}.", 2 if screened else 1)
