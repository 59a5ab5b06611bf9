"""What all specs have in common."""

import os
from typing import Any

from pydantic import BaseModel, model_validator


class Spec(BaseModel):
    """Options that are stored and sent as JSON. A path may be given as a `pathlib.Path`; it is kept as text."""

    @model_validator(mode="before")
    @classmethod
    def _paths_as_text(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in given.items()}
