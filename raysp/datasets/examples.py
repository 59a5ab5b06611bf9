"""Runs of a set of examples: every row of a data set fills in a feature lens."""

from pydantic import ValidationError

from raysp.datasets.sources import open_prompts
from raysp.errors import UserError
from raysp.specs.lenses import FeatureLens

# A row may set these fields of the lens; other columns are not used.
COLUMNS = ("prompt", "question", "target", "foil", "template", "spans")


def read_examples(source: str, lens: FeatureLens, limit: int | None = None) -> list[tuple[str, FeatureLens]]:
    """A label and a lens for each row of a data set, or of its first `limit` rows.

    UserError if it cannot be read, has no column prompt or no rows, or if a row does not make a valid lens (with the row's number).
    """
    found: list[tuple[str, FeatureLens]] = []
    for number, fields in enumerate(open_prompts("examples", source).texts("examples", COLUMNS, limit, lists=("spans",)), 1):
        try:
            made = FeatureLens.model_validate({**lens.model_dump(), **fields})
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"examples row {number}, {first['loc'][0]}", first["input"], "is not valid", str(first["msg"])) from None
        found.append((f"example {number}", made))
    return found
