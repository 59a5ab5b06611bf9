"""Answer each query of a run: a training is evaluated on all queries, so each query defines its own game on the same masks.

Every query gets a surrogate fitted by the run's explorer, single effects and interactions, and scores on the run's held-out masks.
Pure: masks and outputs are given as arrays; there is no dependency on models or the store.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.explorers.base import Explorer, Findings
from raysp.game import GameInfo
from raysp.masks import Masks, Values, lookup
from raysp.runs.answer import annotate
from raysp.runs.prediction import Measured
from raysp.sampling.ablations import ablations
from raysp.sampling.tables import UNMEASURED, effects_table, removed_effects
from raysp.spectral.fourier import FourierSurrogate
from raysp.validation import MAX_EXACT_ORDER, ValidationPlan, ValidationResult, judge
from raysp.validation.data_scores import lds

Outputs = NDArray[np.float64]
Side = Literal["helpful", "harmful"]

#: The number of interactions kept per query.
REPORTED = 50
#: The fewest held-out masks for which a rank correlation is reported.
LEAST_HELDOUT = 8
#: What it means for an example to be helpful or harmful.
SIDES: dict[Side, str] = {
    "helpful": "trained without it, the model scores the answer to the query lower: the example supports the answer",
    "harmful": "trained without it, the model scores the answer to the query higher: the example counts against the answer",
}


@dataclass(frozen=True)
class QueryAnswers:
    """The tables of a run's queries, as in the store (with column `order` for set_order), and notes on them.

    `scores`: query, label, value_intact, value_empty, r2, r2_lo, r2_hi, r2_singles, lds, lds_singles. `singles`: query, component, value, lo, hi, method.
    `interactions`: query, rank, and the columns of `answer.annotate`. `heldout`: query, mask (packed bits), predicted, predicted_singles, exact.
    `metrics`: means over the queries that could be scored. `surrogates`: one per query.
    """

    scores: pa.Table
    singles: pa.Table
    interactions: pa.Table
    heldout: pa.Table
    metrics: dict[str, Any]
    notes: tuple[str, ...]
    surrogates: tuple[FourierSurrogate, ...]

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The tables by their names in the store."""
        return {"query_scores": self.scores, "query_singles": self.singles, "query_interactions": self.interactions, "query_heldout": self.heldout}


def direction(description: Mapping[str, Any]) -> int:
    """+1 if a higher value of the game favours the answer, -1 if it is a loss."""
    return -1 if description.get("value") == "loss" else 1


def side(effect: float, towards: int = 1) -> Side | None:
    """Whether a component with this single effect v(all) - v(all without it) helps or harms a query's answer; `towards` is from `direction`."""
    return None if not effect * towards else "helpful" if effect * towards > 0 else "harmful"


# ---- answers


def answer_queries(
    explorer: Explorer,
    planned: ValidationPlan,
    masks: Masks,
    outputs: Outputs,
    info: GameInfo,
    *,
    watch: Callable[[int, int], None] = lambda _done, _total: None,
) -> QueryAnswers:
    """The answer to each query of a game, from all masks of a run (bool `(m, n)`, explored and validated) and their outputs (float64 `(m, q)`).

    `explorer` was told its masks with their outputs, and `planned` is the run's validation; `watch` is called with the number of queries done and their total.
    ValueError if a mask of either has no finite outputs.
    """
    if outputs.shape != (len(masks), len(info.queries)):
        raise ValueError(f"outputs have shape {outputs.shape}; expected ({len(masks)}, {len(info.queries)})")
    rows = lookup(masks, explorer.masks)
    if explorer.outputs.shape != (len(rows), len(info.queries)):
        raise ValueError(f"the explorer was told outputs of shape {explorer.outputs.shape}; expected ({len(rows)}, {len(info.queries)})")
    if np.any(rows < 0) or np.any(lookup(masks, planned.masks) < 0) or not np.isfinite(outputs).all():
        raise ValueError("outputs are missing for masks that the run asked for")
    count = len(info.queries)
    parts: list[_Part] = []
    surrogates: list[FourierSurrogate] = []
    watch(0, count)
    for query, found in enumerate(explorer.results_by_query()):
        surrogates.append(found.surrogate)
        parts.append(_answer(explorer, found, planned, masks, outputs[:, query], explorer.outputs[:, query], info))
        watch(query + 1, count)
    scores = pa.Table.from_pylist([{"query": q, "label": info.queries[q].label, **part.scores} for q, part in enumerate(parts)], schema=SCORES)
    tables = (_together([getattr(part, name) for part in parts]) for name in ("singles", "interactions", "heldout"))
    return QueryAnswers(scores, *tables, metrics={"queries": count, **_means(scores)}, notes=explorer.query_notes(), surrogates=tuple(surrogates))


SCORES = pa.schema(
    [
        ("query", pa.int32()),
        ("label", pa.string()),
        *((name, pa.float64()) for name in ("value_intact", "value_empty", "r2", "r2_lo", "r2_hi", "r2_singles", "lds", "lds_singles")),
    ]
)


@dataclass(frozen=True)
class _Part:
    """The answer to one query."""

    scores: dict[str, float | None]
    singles: pa.Table
    interactions: pa.Table
    heldout: pa.Table


def _answer(  # noqa: PLR0917  the parameters of `answer_queries` for one query
    explorer: Explorer, found: Findings, planned: ValidationPlan, masks: Masks, values: Values, told: Values, info: GameInfo
) -> _Part:
    found = replace(found, singles=_singles(found, masks, values), table=found.table.slice(0, REPORTED))
    sets = [tuple(cast("list[int]", members)) for members in found.table["components"].to_pylist()]
    checked = replace(planned, findings=found, masks=masks, top=measured(masks, sets), random=(), low_pairs=(), low_total=0)
    verdict = judge(checked, values, explorer.masks, told, explorer.random_state, importance=explorer.importance)
    intact, empty = (float(values[row]) if row >= 0 else None for row in lookup(masks, ablations(info.n, [(), range(info.n)])))
    scores = {"value_intact": intact, "value_empty": empty, **_scores(verdict)}
    return _Part(scores, _known(found.singles), annotate(found, verdict, info, _evaluated(explorer, masks, values)), verdict.heldout)


def _evaluated(explorer: Explorer, masks: Masks, values: Values) -> Measured:
    """A query's evaluations, and which of them its surrogate was fitted to."""
    return Measured(masks, values, lookup(explorer.masks[explorer.fitted_rows], masks) >= 0)


def _singles(found: Findings, masks: Masks, values: Values) -> pa.Table:
    """Exact single effects if all were measured, else those of the fit; a mixture would rank quantities with different meanings together."""
    effects = removed_effects(masks, values)
    return found.singles if effects is None else effects_table(found.surrogate, effects)


def _known(singles: pa.Table) -> pa.Table:
    """The single effects that were measured or estimated."""
    return singles.filter(np.array([method != UNMEASURED for method in singles["method"].to_pylist()], dtype=np.bool_))


def measured(masks: Masks, sets: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Those sets whose ablation, and that of all their subsets, is among the masks (bool `(m, n)`), up to `MAX_EXACT_ORDER`."""
    small = [members for members in sets if 2 <= len(members) <= MAX_EXACT_ORDER]
    wanted = sorted({part for members in small for size in range(1, len(members) + 1) for part in itertools.combinations(members, size)})
    rows = lookup(masks, ablations(masks.shape[1], [(), *wanted]))
    known = {part for part, row in zip(wanted, rows[1:].tolist(), strict=True) if row >= 0} if rows[0] >= 0 else set[tuple[int, ...]]()
    return tuple(members for members in small if all(part in known for size in range(1, len(members) + 1) for part in itertools.combinations(members, size)))


def _scores(verdict: ValidationResult) -> dict[str, float | None]:
    """R² and Spearman's correlation (LDS) on the held-out masks, beside those of the best additive model; None if they cannot be computed."""
    found: dict[str, float | None] = {name: verdict.metrics.get(name) for name in ("r2", "r2_lo", "r2_hi", "r2_singles")}
    exact, predicted, singles = (verdict.heldout[name].to_numpy() for name in ("exact", "predicted", "predicted_singles"))
    enough = len(exact) >= LEAST_HELDOUT
    return found | {"lds": _rank_correlation(predicted, exact) if enough else None, "lds_singles": _rank_correlation(singles, exact) if enough else None}


def _rank_correlation(predicted: Values, exact: Values) -> float | None:
    if not np.ptp(exact) > 0:
        return None
    found = float(lds(predicted[:, None], exact[:, None], draws=1).by_query[0])
    return None if np.isnan(found) else found


def _means(scores: pa.Table) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ("r2", "r2_singles", "lds", "lds_singles"):
        values = [value for value in scores[name].to_pylist() if value is not None]
        if values:
            found[name] = float(np.mean(values))
    return found


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate the tables of all queries, each row with the number of its query; empty tables are skipped, as their column types may differ."""
    numbered = [table.add_column(0, "query", pa.array(np.full(table.num_rows, query, dtype=np.int32))) for query, table in enumerate(tables) if table.num_rows]
    return pa.concat_tables(numbered) if numbered else pa.table({"query": pa.array([], pa.int32())})
