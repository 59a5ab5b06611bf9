"""The command that searches a training recipe: `tune-recipe`."""

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from raysp.commands.run import Json, SpecFile, overridden
from raysp.errors import EvaluationError, UserError
from raysp.specs.lenses import DataLens
from raysp.specs.run import load_spec, resolve


def tune_recipe(
    path: SpecFile,
    *,
    trials: Annotated[int, typer.Option(min=1, help="Recipes to try; the first is the spec's own.")] = 16,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes and choose among what was measured.")] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Write the spec with the chosen recipe to this new file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Train on this machine, in a Ray of its own.")] = False,
    json: Json = False,
) -> None:
    """Search the cheapest training recipe under which the queries' answers respond to the training set.

    Learning rate, epochs, rank and adapted layers are searched by Ray Tune; what a recipe is worth is in `raysp docs actions`.
    """
    from raysp.commands import display
    from raysp.runtime.recipes import choose_recipe

    if minutes is not None and not (0 < minutes < math.inf):
        raise UserError("minutes", minutes, "is not a time", "give a positive number of minutes")
    spec = overridden(load_spec(path), local=local or None)
    if not isinstance(spec.lens, DataLens):
        raise UserError("lens.kind", spec.lens.kind, "trains nothing, so it has no recipe", "give the spec of a data run")
    place = None if output is None else Path(output).expanduser()
    _check_output(place, overwrite=overwrite)
    with display.live_bar(json) as bar:
        found, choice = choose_recipe(resolve(spec), trials=trials, minutes=minutes, watch=lambda progress: bar("", progress))
    if choice is None:
        raise EvaluationError(f"no recipe could be measured: {_reason(found)}")
    if place is not None:
        _write(place, Path(path), choice, spec.lens)
    if json:
        chosen = {**choice.evidence.candidate.fields(spec.lens), "responds": choice.responds, "sentence": choice.sentence}
        display.print_json({"trials": [_row(each) for each in found], "chosen": chosen, "output": None if place is None else str(place)})
        return
    _print(found, choice)
    if place is not None:
        display.out.print(f"spec: {place}", markup=False)


def _check_output(place: Path | None, *, overwrite: bool) -> None:
    """UserError for an unusable output file, before anything is trained."""
    if place is None:
        return
    if place.exists() and not (overwrite and place.is_file()):
        raise UserError("output", str(place), "already exists", "name a new file, or add --overwrite" if place.is_file() else "name a new file")
    if not place.absolute().parent.is_dir() or not os.access(place.absolute().parent, os.W_OK):
        raise UserError("output", str(place), "cannot be written", "name a file in an existing folder that you may write to")


def _write(place: Path, source: Path, choice: Any, lens: DataLens) -> None:
    """Write the source's text with the chosen recipe, and above it why it was chosen."""
    from raysp.specs.editing import with_lens_fields

    text = with_lens_fields(source.read_text(encoding="utf-8"), choice.evidence.candidate.changes(lens))
    place.write_text(f"# raysp tune-recipe: {choice.sentence}\n{text}", encoding="utf-8")


def _reason(found: Any) -> str:
    reasons = [each.diverged for each in found if each.diverged is not None]
    return f"all trainings diverged ({reasons[0]}); give a smaller learning_rate" if reasons else "the time was up before the first one was; allow more"


def _row(evidence: Any) -> dict[str, Any]:
    """A trial for JSON."""
    candidate = evidence.candidate
    numbers = {"seconds": evidence.seconds, "loss": evidence.loss, "untrained_loss": evidence.untrained_loss, "ratio": evidence.ratio, "score": evidence.score}
    return {
        "learning_rate": candidate.learning_rate,
        "epochs": candidate.epochs,
        "rank": candidate.rank,
        "adapted_layers": candidate.adapted_layers,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "subsets": len(evidence.outputs),
        "trainings": evidence.trainings,
        "outcome": evidence.outcome,
        "diverged": evidence.diverged,
    }


def _print(found: Any, choice: Any) -> None:
    from rich.table import Table

    from raysp.commands import display
    from raysp.report.numbers import Scale

    untrained = next((each.untrained_loss for each in found if math.isfinite(each.untrained_loss)), math.nan)
    title = f"{len(found)} recipes; loss of the untrained model on the queries: {Scale(3).show(untrained, signed=False)}"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("learning rate", "epochs", "rank", "s a training", "loss", "spread / noise", "subsets"):
        table.add_column(name, justify="right")
    table.add_column("layers")
    table.add_column("outcome")
    for each in sorted(found, key=lambda each: -each.score):
        chosen = each is choice.evidence
        known = each.diverged is None
        cells = (
            f"{each.candidate.learning_rate:g}",
            str(each.candidate.epochs),
            str(each.candidate.rank),
            f"{each.seconds:.2g}" if known else "–",
            Scale(3).show(each.loss, signed=False) if known else "–",
            f"{each.ratio:.2f}" if known else "–",
            str(len(each.outputs)),
            each.candidate.adapted_layers,
            f"{each.outcome}{' ← chosen' if chosen else ''}",
        )
        table.add_row(*cells, style="bold" if chosen else None)
    display.out.print(table)
    display.out.print(choice.sentence, markup=False)
