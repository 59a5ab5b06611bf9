"""Check that an action can be applied to a run."""

from typing import Any

from raysp.errors import UserError
from raysp.runs.calibration import settled_lens
from raysp.specs.lenses import Action
from raysp.specs.policy import Consent
from raysp.specs.run import LENSES, RunSpec, run_spec

#: What each action needs, to complete the message about a run that lacks it.
NEEDS: dict[Action, str] = {
    "lds": "only runs on training sets have an LDS",
    "prune": "only parts of a model can be pruned",
    "select": "only examples of a training set can be selected",
}


def finished_run(row: dict[str, Any], action: Action, consent: Consent) -> RunSpec:
    """The spec in a run's row, with dtype `auto` resolved as in the run; UserError unless the run is done, its lens supports the action, and what it loads is allowed."""
    if action not in LENSES[row["lens"]].actions:
        supporting = " or ".join(kind for kind, lens in LENSES.items() if action in lens.actions)
        raise UserError("run", row["run_id"], f"uses the {row['lens']} lens, but {NEEDS[action]}", f"name a {supporting} run")
    if row["status"] != "done":
        raise UserError("run", row["run_id"], f"is {row['status']}", f"finish it first: raysp resume {row['run_id']}")
    consent.check(row["run_id"], row["spec"]["lens"])
    spec = run_spec(row["spec"])
    return spec.model_copy(update={"lens": settled_lens(spec.lens, row)})
