"""Options of the explorers, which choose masks and explain their values.

Options are validated and immutable. They do not include the number of components and the seed, which a run takes from its game and its spec. The
explorers themselves are in `raysp.explorers`, which this module does not import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field, field_validator

from raysp.errors import UserError
from raysp.specs.limits import MOST_COUNT, MOST_FLOAT

#: Used in place of a file of scores: single effects estimated from the model's gradients.
GRADIENT = "gradient"
#: The largest b of SPEX, whose masks come in blocks of 2^b.
MAX_B = 20

IndexName = Literal["fourier", "mobius", "bii", "sii", "stii", "fbii", "fsii", "sv", "bv", "wbii", "additivity"]
Keep = Annotated[float, Field(gt=0, lt=1)] | Literal["auto"]
Focus = Literal["both", "intact", "average"]
Slopes = Annotated[
    Literal["auto", "on", "off"],
    Field(
        description="Measure slopes (derivatives in each component's gate) beside values if the game has them; auto: as long as a trial shows that they help."
    ),
]


class ExplorerOptions(BaseModel, extra="forbid", frozen=True):
    """Options shared by all explorers."""

    kind: str
    budget: int | None = Field(
        default=None, ge=1, le=MOST_COUNT, description="Maximum number of evaluations for exploration (validation is extra and reported)."
    )

    @property
    def files(self) -> Mapping[str, str]:
        """The fields that name a file (by its path, or by a reference to its content) and what they name."""
        return {}


class ScreenOptions(ExplorerOptions, frozen=True):
    """Options of `screen`: single ablations, then ablations of pairs (and triples) of the strongest components."""

    kind: Literal["screen"] = "screen"
    top_k: float | Literal["auto"] = Field(
        default="auto",
        description="Components kept: a fraction below 1, a count from 1, or auto: as many as the budget allows; without one, by the spread of the single effects.",
    )
    always_include: tuple[int | str, ...] = Field(default=(), description="Components kept regardless of their single effect: indices or labels.")
    scores: str | tuple[float, ...] | None = Field(
        default=None,
        description="Single effects to use instead of measuring them: numbers, a JSON, CSV, Parquet or npy file, or gradient for estimates from gradients.",
    )
    slopes: Slopes = "auto"
    order: int | None = Field(
        default=None, ge=2, le=3, description="2 for pairs, 3 to add triples of the strongest pairs. Default 2, and 3 where a budget is left after all pairs."
    )

    @property
    def files(self) -> Mapping[str, str]:
        """As `ExplorerOptions.files`."""
        return {"scores": self.scores} if isinstance(self.scores, str) and self.scores != GRADIENT else {}

    @field_validator("top_k")
    @classmethod
    def _check_top_k(cls, value: float | str) -> float | str:
        if isinstance(value, str) or 0 < value < 1 or (value >= 1 and float(value).is_integer()):
            return value
        raise UserError("top_k", value, "is neither a fraction nor a count", "give a fraction below 1, a whole number from 1, or auto")


class ProxySPEXOptions(ExplorerOptions, frozen=True):
    """Options of `proxyspex`: a proxy model trained on random masks and turned into interactions."""

    kind: Literal["proxyspex"] = "proxyspex"
    max_order: int = Field(default=4, ge=1, le=10, description="Largest order of the terms of the surrogate.")
    proxy: Literal["auto", "trees", "kernel", "linear", "mlp", "gradient"] = Field(
        default="auto", description="The proxy model; auto combines kernel, trees and single effects by cross-validation."
    )
    keep: Keep | None = Field(
        default=None,
        description="P(keep) of the random masks; auto: the smallest at which values resemble the intact one. Default 0.5, or auto for parts of a model.",
    )
    focus: Focus | None = Field(
        default=None,
        description="What the answer is about: intact (effects and deviations at this input), average (over contexts) or both. Default both; average for training examples.",
    )
    adaptive: bool = Field(default=False, description="Request masks in rounds and choose half of each later round where the kernel is most uncertain.")
    until_r2: float | None = Field(default=None, gt=0, le=1, description="Stop once the cross-validated R² reaches this.")
    until_width: float | None = Field(
        default=None, gt=0, le=MOST_FLOAT, description="Stop once the 95% intervals of the first ten interactions are narrower than this."
    )
    slopes: Slopes = "auto"
    no_prior: bool = Field(default=False, description="Leave out what earlier runs found about the same components.")
    index: IndexName = Field(default="bii", description="The index in which interactions are reported.")


class SPEXOptions(ExplorerOptions, frozen=True):
    """Options of `spex`: masks designed with an error-correcting code, and a sparse Fourier transform."""

    kind: Literal["spex"] = "spex"
    max_order: int | None = Field(
        default=None, ge=1, le=10, description="Largest order of the terms of the surrogate. Default 4 (proxyspex), 5 or what the budget allows (spex)."
    )
    b: int | None = Field(default=None, ge=1, le=MAX_B, description="Masks come in blocks of 2^b, whose transforms sort terms into 2^b bins.")
    decoder: Literal["soft", "hard"] = Field(
        default="soft", description="How noisy parities are decoded: soft decoding tries flipping the least reliable bits."
    )
    index: IndexName = Field(default="bii", description="The index in which interactions are reported.")


class SinglesOptions(ExplorerOptions, frozen=True):
    """Options of `singles`: one effect per component, without interactions."""

    kind: Literal["singles"] = "singles"


class ExhaustiveOptions(ExplorerOptions, frozen=True):
    """Options of `exhaustive`: all 2^n masks."""

    kind: Literal["exhaustive"] = "exhaustive"
    index: IndexName = Field(default="bii", description="The index in which interactions are reported.")


AnyExplorerOptions = ScreenOptions | ProxySPEXOptions | SPEXOptions | SinglesOptions | ExhaustiveOptions

#: The options by the name of their explorer in specs.
EXPLORER_OPTIONS: dict[str, type[ExplorerOptions]] = {
    "screen": ScreenOptions,
    "proxyspex": ProxySPEXOptions,
    "spex": SPEXOptions,
    "singles": SinglesOptions,
    "exhaustive": ExhaustiveOptions,
}


@runtime_checkable
class StandsForOptions(Protocol):
    """An explorer given in a spec, which stands for its options."""

    def spec_options(self) -> ExplorerOptions:
        """Its options. Raises UserError if it has its own seed or number of components, which cannot be set in a spec."""
        ...
