"""The result of a finished run, as Arrow tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.game import Component
from raysp.masks import lookup
from raysp.runs.prediction import Measured, Prediction, mask_of, predict
from raysp.spectral.fourier import FourierSurrogate
from raysp.store import Store
from raysp.store.failures import no_surrogate

TABLES = (
    "components", "singles", "interactions", "validations", "heldout", "costs", "events", "cross_checks", "prunings",
    "queries", "examples", "query_scores", "query_singles", "query_interactions", "query_heldout", "data_scores", "selections",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a run found, how it was validated and what it cost.

    `summary` is the run's row (verdict, reasons, R² beside singles-only R², values at both ends). The tables are those of the store; those from `queries`
    on concern training sets and are empty for other runs. `surrogate` is the fitted function of masks, None for a run that stored none. `outputs` (float64,
    `(evaluations, queries)`) are in the order of `evaluations`.
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
    surrogate: FourierSurrogate | None

    def predict(self, removed: Sequence[int | str] | None = None, *, kept: Sequence[int | str] | None = None) -> Prediction:
        """Predict the value without the components `removed`, or with only those `kept`, each given by index or label.

        Raises UserError for a name that matches no component or more than one, and for a run without a surrogate.
        """
        if self.surrogate is None:
            raise no_surrogate(self.run_id)
        labels = self.components["label"].to_pylist()
        known = Measured.of(self.evaluations, self.evaluations["value"].to_numpy())
        mask = mask_of(labels, removed, kept)
        row = lookup(known.masks, mask)[0]
        measured = np.array([known.values[row] if row >= 0 else np.nan])
        return predict(self.surrogate, known, mask, labels, measured)[0]

    @property
    def evaluation_count(self) -> int:
        """The number of evaluations that the run requested."""
        return self.evaluations.num_rows

    def __repr__(self) -> str:
        """A one-line summary of the run."""
        what = f"{self.interactions.num_rows} interactions, {self.evaluation_count} evaluations"
        return f"{type(self).__name__}({self.run_id}: {self.summary['verdict'] or self.summary['status']}, {what})"

    def _repr_html_(self) -> str:
        """The answer as a notebook shows it."""
        # Reports stand above runs: the one that draws this is looked up when it is asked for.
        html: str = import_module("raysp.notebooks.answer").answer_html(self)
        return html


def components_of(rows: pa.Table) -> tuple[Component, ...]:
    """The components of a run from its table of them."""
    columns = ("component", "label", "kind", "start", "stop", "size", "layer", "unit")
    return tuple(Component(*row) for row in zip(*(rows[name].to_pylist() for name in columns), strict=True))


def read_result(store: Store, run_id: str) -> Result:
    """Read a run's tables from the store."""
    tables = {name: store.run_table(name, run_id) for name in TABLES}
    surrogate = store.surrogate(run_id) if store.has_surrogate(run_id) else None
    tables["validation"] = tables.pop("validations")
    return Result(
        run_id=run_id,
        summary=store.run_row(run_id),
        evaluations=store.run_evaluations(run_id),
        outputs=store.run_outputs(run_id),
        surrogate=surrogate,
        **tables,
    )
