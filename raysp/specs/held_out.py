"""Lenses of actions on finished runs: a run's question asked of prompts or queries that it did not see, or with other training seeds.

They are made from the lens of a run, and no spec names them.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from raysp.specs.lenses import DataLens, LensSpec, MechanisticLens


class HeldOutPromptsLens(MechanisticLens):
    """A run's mechanistic lens on prompts that the run did not see; every evaluation has the value on each prompt as an output."""

    heldout: str | None = Field(default=None, description="Data set of held-out prompts, as for prompts; by default new prompts of the task.")
    foiled: bool | None = Field(default=None, description="With value accuracy: whether the run's prompts have foils, and so these must.")

    @property
    def data_sets(self) -> Mapping[str, str]:
        """As `LensSpec.data_sets`."""
        return {**super().data_sets, **({} if self.heldout is None else {"heldout": self.heldout})}

    @classmethod
    def of(cls, lens: MechanisticLens, *, heldout: str | None, value: str, foiled: bool) -> Self:
        """The held-out prompts of a run's lens, with the kind of value that its own prompts have."""
        return cls.model_validate(_fields(lens) | {"heldout": heldout, "value": value, "foiled": foiled if lens.value == "accuracy" else None})


class RetrainingLens(DataLens):
    """A run's data lens with one training of each subset, from a seed of its own; queries may be others. Components stay the run's."""

    seed: int = Field(default=0, ge=0, description="Seed of the trainings; training_seed still determines what is trained on and asked.")
    heldout: str | None = Field(default=None, description="Data set of queries to ask instead, as for queries, without those that the run saw.")

    @property
    def data_sets(self) -> Mapping[str, str]:
        """As `LensSpec.data_sets`."""
        return {**super().data_sets, **({} if self.heldout is None else {"heldout": self.heldout})}

    @classmethod
    def of(cls, lens: DataLens, seed: int, *, heldout: str | None = None, value: str | None = None) -> Self:
        """Retrainings of a run's lens with one seed; `value` is the kind of value that its own queries have, if others are asked."""
        return cls.model_validate(_fields(lens) | {"seed": seed, "heldout": heldout} | ({} if value is None else {"value": value}))


def _fields(lens: LensSpec) -> dict[str, Any]:
    return {name: getattr(lens, name) for name in type(lens).model_fields}
