"""A finished run, as Arrow tables."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raysp.store import Store

TABLES = ("components", "singles", "interactions", "validations", "heldout", "costs", "events", "cross_checks", "prunings")


@dataclass(frozen=True)
class Result:
    """What a run found, what it checked and what it paid.

    `summary` is the run's row (verdict, reasons, R² beside singles-only R², values at both ends). The tables are those of the store.
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

    def __repr__(self) -> str:
        """The run in one line."""
        return f"Result({self.run_id}: {self.summary['verdict']}, {self.interactions.num_rows} interactions, {self.evaluations.num_rows} evaluations)"


def read_result(store: Store, run_id: str) -> Result:
    """A run's tables out of the store."""
    tables = {name: store.run_table(name, run_id) for name in TABLES}
    tables["validation"] = tables.pop("validations")
    return Result(run_id=run_id, summary=store.run_row(run_id), evaluations=store.run_evaluations(run_id), **tables)
