"""Judge an explorer's findings by exact ablations and held-out masks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raysp.explorers import candidates
from raysp.explorers.base import Findings
from raysp.explorers.fitting import fit_singles
from raysp.explorers.samples import random_rows
from raysp.masks import Masks, Values, lookup, pack
from raysp.sampling.ablations import ablations
from raysp.spectral.fourier import ROUNDING, FourierSurrogate, is_complete
from raysp.spectral.indices import UNIFORM
from raysp.spectral.regression import r_squared
from raysp.spectral.sets import Floats
from raysp.validation.kinds import kind_of
from raysp.validation.numeric_noise import NumericNoise, typical_effects
from raysp.validation.planning import Members, ValidationPlan
from raysp.validation.verdicts import Metrics, NoiseBesideEffects, Reason, Verdict, verdict

if TYPE_CHECKING:
    import pyarrow as pa

#: The number of resamples of a bootstrap interval, and the fewest held-out masks for a score.
RESAMPLES, LEAST_HELDOUT = 1000, 8
#: The most masks scored if every mask is known, and the most masks to which the singles-only baseline is fitted.
MOST_SCORED, MOST_FITTED = 2000, 10_000
#: An interaction below this share of the strongest one (or of the strongest single effect) is negligible.
NEGLIGIBLE = 0.1
#: The error probability of the bound on low-impact pairs.
RISK = 0.05


@dataclass(frozen=True)
class ValidationResult:
    """The result of a validation.

    `table`: one row per interaction measured: components list<int32>, order int32, role 'top', 'random' or 'low_impact', estimate (the surrogate's
    deviation from additivity), exact, error = estimate - exact, joint_effect = Δ(T), sum_of_effects = sum of Δ(i), kind. `heldout`: mask (packed bits), predicted,
    predicted_singles, exact. `metrics`: figures by name, without those that could not be computed. `verdict` with its `reasons`.
    """

    table: pa.Table
    heldout: pa.Table
    metrics: Metrics
    verdict: Verdict
    reasons: tuple[Reason, ...]


def judge(
    plan: ValidationPlan,
    values: Values,
    masks: Masks,
    told: Values,
    random_state: int = 0,
    *,
    importance: Values | None = None,
    noise: NumericNoise | None = None,
) -> ValidationResult:
    """Compare the plan's findings with the values (`(m,)`) of its masks.

    `masks` and `told` are the explorer's masks and values, for the singles-only baseline, and `importance` (`(m,)`) how much each of them counts there (None: as
    far as masks look random); `noise` is the numeric noise of a game with a model.
    Raises ValueError if the values do not match the plan.
    """
    if values.shape != (len(plan.masks),):
        raise ValueError(f"values have shape {values.shape}; expected ({len(plan.masks)},) for masks of shape {plan.masks.shape}")
    rng, findings = np.random.default_rng(random_state), plan.findings
    complete = is_complete(masks) and bool(np.allclose(findings.surrogate.predict(masks), told, rtol=ROUNDING, atol=ROUNDING * float(np.ptp(told))))
    table = _table(plan, values, findings.surrogate)
    drawn = rng.permutation(len(told))[:MOST_SCORED]
    exam = (masks[drawn], told[drawn]) if complete else _unseen(plan, values, masks)
    unseen = not complete and len(masks) + len(exam[0]) < 1 << min(plan.n, 62)
    missed = None if complete else _missed_at_empty(plan, masks, told)
    heldout, metrics = _score(exam, findings, _baseline(plan, values, masks, told, importance), rng, unseen=unseen, missed=missed)
    metrics |= {} if complete else _score_near(plan, values, masks, rng)
    metrics["heldout"] = 0.0 if complete else metrics["heldout"]
    metrics |= _errors(table, findings, rng, lookup(masks, ablations(plan.n, [*plan.top, *plan.random])) >= 0) | _assumption(
        plan, table, findings, float(np.abs(values).max(initial=0.0))
    )
    constant = not np.ptp(np.concatenate([values, told])) > 0
    beside = None if noise is None else NoiseBesideEffects(noise, *_typical_effects(table, findings))
    words, reasons = verdict(metrics, constant=constant, complete=complete, screened="kept" in findings.diagnostics, noise=beside)
    return ValidationResult(table, heldout, metrics, words, reasons)


def _typical_effects(table: pa.Table, findings: Findings) -> tuple[float, float]:
    """Typical sizes of the single effects and of the reported interactions' exact deviations, as from `typical_effects`."""
    reported = np.array([role == "top" for role in table.column("role").to_pylist()], dtype=np.bool_)
    return typical_effects(findings.singles.column("value").to_numpy(), table.column("exact").to_numpy()[reported])


# ---- exact ablations


def _table(plan: ValidationPlan, values: Values, surrogate: FourierSurrogate) -> pa.Table:
    import pyarrow as pa

    roles = {"top": plan.top, "random": plan.random, "low_impact": plan.low_pairs}
    sets = [members for group in roles.values() for members in group]
    exact, joint, parts = _deviations(plan, values, sets)
    estimate, _, _ = _deviations(plan, surrogate.predict(plan.masks), sets)
    return pa.table(
        {
            "components": pa.array([list(members) for members in sets], pa.list_(pa.int32())),
            "order": pa.array([len(members) for members in sets], pa.int32()),
            "role": pa.array([role for role, group in roles.items() for _ in group], pa.string()),
            "estimate": pa.array(estimate, pa.float64()),
            "exact": pa.array(exact, pa.float64()),
            "error": pa.array(estimate - exact, pa.float64()),
            "joint_effect": pa.array(joint, pa.float64()),
            "sum_of_effects": pa.array(parts, pa.float64()),
            "kind": pa.array([kind_of(j, p) for j, p in zip(joint.tolist(), parts.tolist(), strict=True)], pa.string()),
        }
    )


def _deviations(plan: ValidationPlan, values: Values, sets: list[Members]) -> tuple[Floats, Floats, Floats]:
    """Deviation from additivity, joint effect and sum of single effects of each set, float64 `(len(sets),)`."""
    wanted = {part for members in sets for size in range(1, len(members) + 1) for part in itertools.combinations(members, size)}
    ordered = sorted(wanted, key=lambda part: (len(part), part))
    found = candidates.measure(plan.masks, values, ordered)
    rows = lookup(plan.masks, ablations(plan.n, [(), *sets]))
    joint = values[rows[0]] - values[rows[1:]]
    parts = np.array([sum(found[i,] for i in members) for members in sets], dtype=np.float64)
    return np.array([found[members] for members in sets], dtype=np.float64), joint, parts


def _errors(table: pa.Table, findings: Findings, rng: np.random.Generator, explored: NDArray[np.bool_]) -> Metrics:
    """Mean absolute error of the reported interactions' estimates with its interval, their correlation and the share of correct signs.

    `explored` `(checked,)` marks those that the explorer measured itself: in the answer they are exact.
    """
    reported = np.array([role != "low_impact" for role in table.column("role").to_pylist()], dtype=np.bool_)
    estimate, exact = (table.column(name).to_numpy()[reported] for name in ("estimate", "exact"))
    if not len(exact):
        return {"checked": 0.0}
    errors = np.abs(estimate - exact)
    means = errors[rng.integers(0, len(errors), (RESAMPLES, len(errors)))].mean(axis=1)
    worth = np.abs(exact) > NEGLIGIBLE * float(np.abs(exact).max())
    metrics = {
        "checked": float(len(exact)),
        "explored": float(explored.sum()),
        "error": float(errors.mean()),
        "error_lo": float(np.quantile(means, RISK / 2)),
        "error_hi": float(np.quantile(means, 1 - RISK / 2)),
        "exact_size": float(np.abs(exact).mean()),
        "single_size": float(np.abs(findings.singles.column("value").to_numpy()).max(initial=0.0)),
        "sign_agreement": float(np.mean(np.sign(estimate[worth]) == np.sign(exact[worth]))) if worth.any() else 1.0,
    }
    if len(exact) > 2 and np.ptp(exact) > 0 and np.ptp(estimate) > 0:
        metrics["correlation"] = float(np.corrcoef(estimate, exact)[0, 1])
    return metrics


def _assumption(plan: ValidationPlan, table: pa.Table, findings: Findings, scale: float) -> Metrics:
    """Deviations of random pairs of low-impact components beside the weakest non-negligible top interaction; rounding errors at this scale count as zero."""
    if not plan.low_pairs:
        return {}
    roles = np.array(table.column("role").to_pylist())
    exact, error = table.column("exact").to_numpy(), table.column("error").to_numpy()
    top, low = np.abs(exact[roles == "top"]), roles == "low_impact"
    singles = np.abs(findings.singles.column("value").to_numpy())
    strongest = float(top.max()) if len(top) and top.max() > 0 else float(singles.max(initial=0.0))
    worth = top[top >= NEGLIGIBLE * strongest]
    # What the answer does not say of a pair that does deviate; a deviation that is said but is not there is an error of the estimates.
    count, missed = len(plan.low_pairs), float(np.minimum(np.abs(error[low]), np.abs(exact[low])).max())
    return {
        "low_pairs": float(count),
        "low_pairs_total": float(plan.low_total),
        "low_largest": float(np.abs(exact[low]).max()),
        "low_missed": missed if missed > ROUNDING * scale else 0.0,
        "low_share": 0.0 if count == plan.low_total else float(1 - RISK ** (1 / count)),
        "weakest_top": float(top.min()) if len(top) else 0.0,
        "bar": float(worth.min()) if len(worth) else NEGLIGIBLE * strongest,
    }


# ---- held-out masks


def _unseen(plan: ValidationPlan, values: Values, masks: Masks) -> tuple[Masks, Values]:
    """The held-out masks that the explorer did not have, and their values."""
    fresh = plan.heldout[lookup(masks, plan.heldout) < 0]
    return fresh, values[lookup(plan.masks, fresh)]


def _missed_at_empty(plan: ValidationPlan, masks: Masks, told: Values) -> float | None:
    """The empty input's value less what the surrogate makes of it without having it written in; None if it was not measured, or is far from all masks drawn."""
    surrogate, empty = plan.findings.surrogate, np.zeros((1, plan.n), dtype=np.bool_)
    row = int(lookup(masks, empty)[0])
    if row < 0 or not plan.keep_probability == surrogate.keep_probability == UNIFORM:
        return None
    return float(told[row] - surrogate.with_points(None).predict(empty)[0])


def _score(
    exam: tuple[Masks, Values],
    findings: Findings,
    baseline: Callable[[Masks], Values],
    rng: np.random.Generator,
    *,
    unseen: bool,
    missed: float | None,
) -> tuple[pa.Table, Metrics]:
    """Predicted and exact values on the masks of the exam, and R² with intervals beside that of the baseline.

    `unseen`: there are masks that were not measured. `missed`: the empty input's value less its prediction.
    """
    import pyarrow as pa

    heldout, exact = exam
    predicted, singles = findings.surrogate.predict(heldout), baseline(heldout)
    table = pa.table(
        {
            "mask": pa.array([row.tobytes() for row in pack(heldout)], pa.binary()),
            "predicted": pa.array(predicted, pa.float64()),
            "predicted_singles": pa.array(singles, pa.float64()),
            "exact": pa.array(exact, pa.float64()),
        }
    )
    metrics: Metrics = {"heldout": float(len(heldout))}
    if len(heldout) < LEAST_HELDOUT or not np.ptp(exact) > 0:
        return table, metrics
    full, alone = _bootstrap_r2(exact, predicted, singles, rng)
    r2, r2_singles = r_squared(exact, predicted), r_squared(exact, singles)
    lowest = _lower_end(full, len(heldout)) if unseen else float(np.quantile(full, RISK / 2))
    if missed is not None:
        metrics |= {"empty_missed": missed, "heldout_spread": float(exact.std())}
        if unseen:  # one more mask, a usual one but for this miss
            usual = float(exact.mean())
            lowest = min(lowest, r_squared(np.append(exact, usual + missed), np.append(predicted, usual)))
    metrics |= {
        "r2": r2,
        "r2_lo": lowest,
        "r2_hi": float(np.quantile(full, 1 - RISK / 2)),
        "r2_singles": r2_singles,
        "gain": r2 - r2_singles,
        "gain_lo": float(np.quantile(full - alone, RISK / 2)),
        "gain_hi": float(np.quantile(full - alone, 1 - RISK / 2)),
    }
    return table, metrics


def _score_near(plan: ValidationPlan, values: Values, masks: Masks, rng: np.random.Generator) -> Metrics:
    """R² around the intact input, on held-out masks that remove a few components, beside that of adding up the single effects."""
    fresh = plan.near[lookup(masks, plan.near) < 0]
    exact = values[lookup(plan.masks, fresh)]
    if len(fresh) < LEAST_HELDOUT or not np.ptp(exact) > 0:
        return {}
    predicted, singles = plan.findings.surrogate.predict(fresh), _added_up(plan, values)(fresh)
    full, _ = _bootstrap_r2(exact, predicted, singles, rng)
    return {
        "near": float(len(fresh)),
        "r2_near": r_squared(exact, predicted),
        "r2_near_lo": _lower_end(full, len(fresh)),
        "r2_near_hi": float(np.quantile(full, 1 - RISK / 2)),
        "r2_near_singles": r_squared(exact, singles),
    }


def _bootstrap_r2(exact: Values, predicted: Values, singles: Values, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """R² of both predictions on the same resamples of the held-out masks, float64 `(resamples,)`."""
    rows = rng.integers(0, len(exact), (RESAMPLES, len(exact)))
    spread = np.var(exact[rows], axis=1)
    usable = spread > 0
    full, alone = (1 - np.mean((exact - guess)[rows] ** 2, axis=1)[usable] / spread[usable] for guess in (predicted, singles))
    return full, alone


def _lower_end(resampled: Floats, count: int) -> float:
    """The lower end of the interval of an R² on `count` masks, from its resamples.

    Resamples hold nothing that the masks have not shown: if all are predicted perfectly, so are all resamples. So the lower end is that of one more mask, on
    which the surrogate is no better than the mean: it loses a share 1 / (count + 1).
    """
    least = float(np.quantile(resampled, RISK / 2))
    return least * count / (count + 1) if least > 0 else least


def _baseline(plan: ValidationPlan, values: Values, masks: Masks, told: Values, importance: Values | None) -> Callable[[Masks], Values]:
    """Prediction from single effects alone: a LASSO on the explorer's random masks or, if it only used masks near the intact input, the sum of its effects."""
    rows = np.flatnonzero(random_rows(masks, plan.keep_probability) if importance is None else importance > 0)
    if plan.keep_probability == plan.findings.surrogate.keep_probability and len(rows):
        rows = np.random.default_rng(0).permutation(rows)[:MOST_FITTED] if len(rows) > MOST_FITTED else rows
        weights = None if importance is None else importance[rows]
        return fit_singles(masks[rows], told[rows], keep_probability=plan.keep_probability, weights=weights).predict
    return _added_up(plan, values)


def _added_up(plan: ValidationPlan, values: Values) -> Callable[[Masks], Values]:
    """Prediction of masks near the intact input: its value less the single effects of what they remove."""
    intact = float(values[lookup(plan.masks, np.ones((1, plan.n), dtype=np.bool_))[0]])
    effects = np.asarray(plan.findings.singles.column("value").to_numpy(), dtype=np.float64)

    def added_up(wanted: Masks) -> Values:
        return intact - (~wanted).astype(np.float64) @ effects

    return added_up
