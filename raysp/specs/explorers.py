"""Options of the explorers: how a spec has masks chosen and their values explained.

Options are validated and immutable. The number of components and the seed are no options: a run takes them from its game and its spec. What
explorers do with their options lives in `raysp.explorers`; nothing here imports it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field, field_validator

from raysp.errors import UserError

#: Stands in place of a file of scores: the single effects that the model's gradients estimate.
GRADIENT = "gradient"
#: The largest b of SPEX, whose masks come in blocks of 2^b.
MAX_B = 20

IndexName = Literal["fourier", "mobius", "bii", "sii", "stii", "fbii", "fsii", "sv", "bv", "wbii", "additivity"]
Keep = Annotated[float, Field(gt=0, lt=1)] | Literal["auto"]


class ExplorerOptions(BaseModel, extra="forbid", frozen=True):
    """Options that all explorers share."""

    kind: str
    budget: int | None = Field(default=None, ge=1, description="Evaluations this run may buy (validation is extra and stated).")


class ScreenOptions(ExplorerOptions, frozen=True):
    """Options of `screen`: single ablations, then ablations of pairs (and triples) of the strongest components."""

    kind: Literal["screen"] = "screen"
    top_k: float | Literal["auto"] = Field(
        default="auto", description="Components kept: a fraction below 1, a count from 1, or auto from the spread of the single effects."
    )
    always_include: tuple[int | str, ...] = Field(default=(), description="Components kept whatever their single effect: indices or labels.")
    scores: str | tuple[float, ...] | None = Field(
        default=None, description="Precomputed single effects, a JSON, CSV, Parquet or npy file of them, or gradient for the model's own, instead of measuring."
    )
    order: int = Field(default=2, ge=2, le=3, description="2 for pairs, 3 for triples among the strongest pairs as well.")

    @field_validator("top_k")
    @classmethod
    def _check_top_k(cls, value: float | str) -> float | str:
        if isinstance(value, str) or 0 < value < 1 or (value >= 1 and value == int(value)):
            return value
        raise UserError("top_k", value, "is neither a fraction nor a count", "give a fraction below 1, a whole number from 1, or auto")


class ProxySPEXOptions(ExplorerOptions, frozen=True):
    """Options of `proxyspex`: a proxy model trained on random masks and turned into interactions."""

    kind: Literal["proxyspex"] = "proxyspex"
    max_order: int = Field(default=4, ge=1, le=10, description="Largest order of the terms of the surrogate.")
    proxy: Literal["auto", "trees", "kernel", "linear", "mlp", "gradient"] = Field(
        default="auto", description="The proxy model; auto takes whichever of trees, kernel and singles, or combination of them, predicts best."
    )
    keep: Keep | None = Field(
        default=None,
        description="P(keep) of the random masks; auto: the smallest at which values still resemble the intact one. Without one 0.5; auto for parts of a model.",
    )
    adaptive: bool = Field(default=False, description="Ask in rounds, half of each chosen for what the kernel knows least about.")
    until_r2: float | None = Field(default=None, gt=0, le=1, description="Stop once the cross-validated R² reaches this.")
    until_width: float | None = Field(default=None, gt=0, description="Stop once the 95 % intervals of the first ten interactions are narrower than this.")
    index: IndexName = Field(default="bii", description="The index in which interactions are reported.")


class SPEXOptions(ExplorerOptions, frozen=True):
    """Options of `spex`: masks laid out by an error-correcting code, and a sparse Fourier transform."""

    kind: Literal["spex"] = "spex"
    max_order: int | None = Field(
        default=None, ge=1, le=10, description="Largest order of the terms of the surrogate. Default 4 (proxyspex), 5 or what the budget allows (spex)."
    )
    b: int | None = Field(default=None, ge=1, le=MAX_B, description="Masks come in blocks of 2^b, whose transforms sort terms into 2^b bins.")
    decoder: Literal["soft", "hard"] = Field(default="soft", description="How parities measured with noise are decoded: soft tries flipping the least sure.")
    index: IndexName = Field(default="bii", description="The index in which interactions are reported.")


class SinglesOptions(ExplorerOptions, frozen=True):
    """Options of `singles`: one effect a component, no interactions."""

    kind: Literal["singles"] = "singles"


class ExhaustiveOptions(ExplorerOptions, frozen=True):
    """Options of `exhaustive`: all 2^n masks."""

    kind: Literal["exhaustive"] = "exhaustive"
    index: IndexName = Field(default="bii", description="The index in which interactions are reported.")


AnyExplorerOptions = ScreenOptions | ProxySPEXOptions | SPEXOptions | SinglesOptions | ExhaustiveOptions

#: The options by the name that their explorer has in specs.
EXPLORER_OPTIONS: dict[str, type[ExplorerOptions]] = {
    "screen": ScreenOptions,
    "proxyspex": ProxySPEXOptions,
    "spex": SPEXOptions,
    "singles": SinglesOptions,
    "exhaustive": ExhaustiveOptions,
}


@runtime_checkable
class StandsForOptions(Protocol):
    """An explorer in a spec: it stands for its options."""

    def spec_options(self) -> ExplorerOptions:
        """Its options. UserError if it has a seed or a number of components of its own, which a spec has no place for."""
        ...
