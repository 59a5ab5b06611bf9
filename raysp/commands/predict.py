"""The command that asks a stored run about other subsets: `predict`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from raysp.commands.acting import Local
from raysp.commands.consent import AllowPickle, AllowRemoteCode
from raysp.commands.inspect import RunId
from raysp.commands.place import Asked
from raysp.commands.run import Json, Store
from raysp.commands.where import Server, place
from raysp.errors import UserError
from raysp.specs.policy import Consent

if TYPE_CHECKING:
    from raysp.runs.prediction import Prediction

Subsets = list[str]
#: Components named of a subset.
SHOWN = 8


def predict(
    run_id: RunId,
    *,
    removed: Annotated[Subsets | None, typer.Option(metavar="LIST", help="Components to remove, by number or label, such as 3,5. May be repeated.")] = None,
    kept: Annotated[Subsets | None, typer.Option(metavar="LIST", help="The only components to keep. May be repeated.")] = None,
    query: Annotated[int | None, typer.Option(help="Predict one query of a training set, by number, instead of the mean over all.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Measure these subsets with the model as well, and store their values.")] = False,
    allow_pickle: AllowPickle = False,
    allow_remote_code: AllowRemoteCode = False,
    local: Local = False,
    store: Store = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Predict a run's value without some components, from its stored surrogate.

    Loads no model, unless --exact is given. An interval holds the value of 95% of the subsets of about that size.
    """
    from raysp.commands import display
    from raysp.runs.prediction import as_json

    if not removed and not kept:
        raise UserError("removed", None, "is missing", "name components, such as --removed 3,5")
    asked = Asked(removed or (), kept or (), query, Consent(allow_pickle, allow_remote_code) if exact else None)
    with display.live_bar(quiet=json or not exact) as bar:
        found = place(server, store, local=local).predict(run_id, asked, lambda progress: bar("", progress))
    if json:
        told = [as_json(each) for each in found.predictions]
        display.print_json({"run_id": found.run_id, "query": query, "value_intact": found.value_intact, "predictions": told})
    else:
        _print(found.predictions, None if query is not None else found.value_intact)


def _print(predictions: "Sequence[Prediction]", intact: float | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from raysp.commands import display
    from raysp.report.numbers import scale
    from raysp.runs.prediction import caution

    size = scale(value for each in predictions for value in (each.value, each.lo, each.hi, each.measured, intact))
    table = Table("removed", "predicted", "95% interval", "measured", title=size.titled("Predicted by the surrogate"), box=None)
    for each in predictions:
        names = ", ".join(f"{label} ({number})" for label, number in zip(each.labels[:SHOWN], each.removed, strict=False))
        more = f", … ({len(each.removed)} of them)" if len(each.removed) > SHOWN else ""
        table.add_row(escape(names + more) or "nothing", size.show(each.value), escape(size.interval(each.lo, each.hi)), size.show(each.measured))
    display.out.print(table)
    if intact is not None:
        display.out.print(f"The value with every component kept is {size.whole(intact)}.", markup=False)
    for note in dict.fromkeys(caution(each) for each in predictions):
        if note:
            display.out.print(note, markup=False)
