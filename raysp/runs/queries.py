"""What a run says of each of its queries: one training answered them all, so each has a game of its own on the same masks.

Every query gets a surrogate as the run's explorer would have fitted it, its single effects and interactions, and its scores on the run's held-out masks.
Pure: masks and outputs come in as arrays; it knows neither models nor the store.
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
from raysp.masks import Masks, Values
from raysp.runs.answer import annotate
from raysp.sampling.draws import ablations, lookup
from raysp.sampling.tables import UNMEASURED, removed_effects, removed_table
from raysp.spectral.fourier import FourierSurrogate
from raysp.validation import MAX_EXACT_ORDER, ValidationPlan, ValidationResult, judge
from raysp.validation.data_scores import lds

Outputs = NDArray[np.float64]
Side = Literal["helpful", "harmful"]

#: Interactions kept a query.
REPORTED = 50
#: Held-out masks below which a rank correlation says nothing.
LEAST_HELDOUT = 8
#: What it means for an example to be on either side.
SIDES: dict[Side, str] = {
    "helpful": "trained without it, the model gives less for the query: it speaks for the answer",
    "harmful": "trained without it, the model gives more for the query: it speaks against the answer",
}


@dataclass(frozen=True)
class QueryAnswers:
    """The tables of a run's queries, as the store has them (column `order` for set_order), and what is to be said of them.

    `scores`: query, label, value_intact, value_empty, r2, r2_lo, r2_hi, r2_singles, lds, lds_singles. `singles`: query, component, value, lo, hi, method.
    `interactions`: query, rank, and the columns of `answer.annotate`. `heldout`: query, mask (packed bits), predicted, predicted_singles, exact.
    `metrics`: means over the queries that could be scored. `surrogates`: one a query.
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
    """+1 where more of a game's value is more of the answer, -1 where it is less (a loss)."""
    return -1 if description.get("value") == "loss" else 1


def side(effect: float, towards: int = 1) -> Side | None:
    """Whether a component of this single effect v(all) - v(all without it) helps a query's answer or harms it; `towards` as `direction` says."""
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

    `explorer` was told its masks with their outputs, `planned` is the run's validation; `watch` hears how many queries are done, and of how many. ValueError where a mask of
    either has no finite outputs.
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
    """What is said of one query."""

    scores: dict[str, float | None]
    singles: pa.Table
    interactions: pa.Table
    heldout: pa.Table


def _answer(  # noqa: PLR0917  one query's share of what `answer_queries` has
    explorer: Explorer, found: Findings, planned: ValidationPlan, masks: Masks, values: Values, told: Values, info: GameInfo
) -> _Part:
    found = replace(found, singles=_singles(found, masks, values), table=found.table.slice(0, REPORTED))
    sets = [tuple(cast("list[int]", members)) for members in found.table["components"].to_pylist()]
    checked = replace(planned, findings=found, masks=masks, top=measured(masks, sets), random=(), low_pairs=(), low_total=0)
    verdict = judge(checked, values, explorer.masks, told, explorer.random_state)
    intact, empty = (float(values[row]) if row >= 0 else None for row in lookup(masks, ablations(info.n, [(), range(info.n)])))
    scores = {"value_intact": intact, "value_empty": empty, **_scores(verdict)}
    return _Part(scores, _known(found.singles), annotate(found, verdict, info), verdict.heldout)


def _singles(found: Findings, masks: Masks, values: Values) -> pa.Table:
    """Exact single effects where all were measured, else what the fit has: never some of both, which would be ranked together and mean different things."""
    effects = removed_effects(masks, values)
    return found.singles if effects is None else removed_table(effects)


def _known(singles: pa.Table) -> pa.Table:
    """The single effects that were measured or estimated."""
    return singles.filter(np.array([method != UNMEASURED for method in singles["method"].to_pylist()], dtype=np.bool_))


def measured(masks: Masks, sets: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Those sets whose ablation, and that of all their subsets, is among the masks (bool `(m, n)`), up to the order that is ever measured exactly."""
    small = [members for members in sets if 2 <= len(members) <= MAX_EXACT_ORDER]
    wanted = sorted({part for members in small for size in range(1, len(members) + 1) for part in itertools.combinations(members, size)})
    rows = lookup(masks, ablations(masks.shape[1], [(), *wanted]))
    known = {part for part, row in zip(wanted, rows[1:].tolist(), strict=True) if row >= 0} if rows[0] >= 0 else set[tuple[int, ...]]()
    return tuple(members for members in small if all(part in known for size in range(1, len(members) + 1) for part in itertools.combinations(members, size)))


def _scores(verdict: ValidationResult) -> dict[str, float | None]:
    """R² and Spearman's correlation (LDS) on the held-out masks, beside those of the best additive model; None where they cannot be had."""
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
    """The tables of all queries as one, each row with the number of its query; empty ones have no say in the columns' types."""
    numbered = [table.add_column(0, "query", pa.array(np.full(table.num_rows, query, dtype=np.int32))) for query, table in enumerate(tables) if table.num_rows]
    return pa.concat_tables(numbered) if numbered else pa.table({"query": pa.array([], pa.int32())})
