"""Measure exact values of given masks with a stored run's model, and store them."""

import numpy as np

from raysp.blobs import with_stored_blobs
from raysp.errors import UserError
from raysp.masks import Masks
from raysp.runs.backend import BackendOf
from raysp.runs.calibration import settled_lens
from raysp.runs.continuation import check_same_game
from raysp.runs.progress import Watch
from raysp.runs.run import Run
from raysp.runs.run_store import ActionStore
from raysp.specs.policy import NO_CONSENT, Consent
from raysp.specs.run import run_spec

#: The phase under which the values are stored.
PHASE = "predict"


@with_stored_blobs
def measure(  # noqa: PLR0917  what is measured, and with what
    store: ActionStore, run_id: str, masks: Masks, backend_of: BackendOf, watch: Watch, consent: Consent = NO_CONSENT
) -> None:
    """Evaluate masks (bool, `(k, n)`) with a backend of the run's game and store their values; values already in the store cost nothing.

    UserError for a run of a Python function, and for a model, prompt or training set that has changed.
    """
    row = store.run_row(run_id)
    if not np.isnan(store.known(row["game_id"], masks)).any():
        return
    if row["lens"] == "function":
        raise UserError("run", run_id, "explains a Python function, which is not in the store", "call the function yourself, or omit --exact")
    consent.check(run_id, row["spec"]["lens"])
    spec = run_spec(row["spec"])
    backend = backend_of(settled_lens(spec.lens, row))
    check_same_game(row, backend.info, "parts of a question")
    Run(spec, backend, store, run_id, report=watch).evaluate(masks, PHASE, 0)
