"""A finished run, as Arrow tables."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.store import Store

TABLES = (
    "components", "singles", "interactions", "validations", "heldout", "costs", "events", "cross_checks", "prunings",
    "queries", "examples", "query_scores", "query_singles", "query_interactions", "query_heldout", "data_scores", "selections",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What a run found, what it checked and what it paid.

    `summary` is the run's row (verdict, reasons, R² beside singles-only R², values at both ends). The tables are those of the store; those from `queries`
    on are about training sets and empty otherwise. `outputs` (float64, `(evaluations, queries)`) are in the order of `evaluations`.
    """

    run_id: str
    summary: dict[str, Any]
    components: pa.Table
    singles: pa.Table
    interactions: pa.Table
    validation: pa.Table
    heldout: pa.Table
    evaluations: pa.Table
    costs: pa.Table
    events: pa.Table
    cross_checks: pa.Table
    prunings: pa.Table
    queries: pa.Table
    examples: pa.Table
    query_scores: pa.Table
    query_singles: pa.Table
    query_interactions: pa.Table
    query_heldout: pa.Table
    data_scores: pa.Table
    selections: pa.Table
    outputs: NDArray[np.float64]

    def __repr__(self) -> str:
        """The run in one line."""
        return f"Result({self.run_id}: {self.summary['verdict']}, {self.interactions.num_rows} interactions, {self.evaluations.num_rows} evaluations)"


def read_result(store: Store, run_id: str) -> Result:
    """A run's tables out of the store."""
    tables = {name: store.run_table(name, run_id) for name in TABLES}
    tables["validation"] = tables.pop("validations")
    return Result(run_id=run_id, summary=store.run_row(run_id), evaluations=store.run_evaluations(run_id), outputs=store.run_outputs(run_id), **tables)
