"""What every explorer is: it asks for masks, is told their values, and says what it found.

An explorer knows nothing of models, of Ray or of the store. It is a validated set of options that can be `start`ed on `n` components;
the started one carries state, the options themselves never change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from raysp.errors import UserError
from raysp.masks import Masks, Values, check_finite, check_masks
from raysp.spectral.regression import r_squared

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.spectral.fourier import FourierSurrogate
    from raysp.spectral.sets import Floats


class Surrogate(Protocol):
    """A cheap stand-in for the game; `keep_probability` is that of the masks it was fitted to."""

    n: int
    keep_probability: float

    def predict(self, masks: Masks) -> Values:
        """Values (float64, `(m,)`) of masks (bool, `(m, n)`)."""
        ...

    def interactions(self, index: str = "bii", max_order: int | None = None, min_order: int = 0) -> pa.Table:
        """Sets with their coefficient in `index`: columns components list<int32>, order int32, index string, value, lo, hi double, significant bool."""
        ...


@dataclass(frozen=True)
class Findings:
    """What an explorer found.

    `singles` has columns component int32, value double (the single effect), lo, hi double, method string ('removed' for exact single
    ablations, 'lasso' for estimates). `table` is a `Surrogate.interactions` table of order 2 and more in the explorer's own index,
    the significant first, then the strongest. `index` names that index. `notes` are plain sentences for people.
    """

    surrogate: Surrogate
    singles: pa.Table
    table: pa.Table
    index: str
    notes: tuple[str, ...] = ()
    diagnostics: dict[str, Any] = field(default_factory=dict)

    def interactions(self, index: str = "bii", max_order: int | None = None, min_order: int = 1) -> pa.Table:
        """The surrogate's sets in any index, as `Surrogate.interactions`."""
        return self.surrogate.interactions(index, max_order, min_order)


class Explorer(BaseModel, ABC):
    """Options of an explorer, and once started its ask/tell state."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: int | None = Field(default=None, ge=1, description="Evaluations this run may buy (validation is extra and stated).")
    n: int | None = Field(default=None, ge=1, exclude=True, description="Number of components, when used without a game.")
    random_state: int = Field(default=0, ge=0, exclude=True, description="Seed of everything random.")

    _masks: list[Masks] = PrivateAttr(default_factory=list)
    _values: list[Values] = PrivateAttr(default_factory=list)
    _pending: Masks | None = PrivateAttr(default=None)
    _findings: Findings | None = PrivateAttr(default=None)

    @property
    def name(self) -> str:
        """The explorer's name in specs and SQL."""
        return str(getattr(self, "kind"))  # noqa: B009  every subclass declares `kind` as its own Literal

    @property
    def keep_probability(self) -> float:
        """P(keep) of the masks on which this explorer's surrogate ought to be right, and is scored."""
        return 0.5

    # ---- what a subclass provides

    @abstractmethod
    def least_budget(self, n: int) -> int:
        """The fewest evaluations that would give an answer for `n` components."""

    @abstractmethod
    def planned(self, n: int) -> int:
        """The evaluations a run on `n` components will ask for (an upper bound where rounds adapt)."""

    @abstractmethod
    def _next(self) -> Masks | None:
        """The next round's masks, or None when done. May look at `self.masks` and `self.values`."""

    @abstractmethod
    def result(self) -> Findings:
        """What was found from all values told so far."""

    def preview(self, masks: object, values: object) -> float | None:
        """R² so far, for a progress bar: a quick fit on four fifths of these evaluations scored on the rest; None while it would say nothing."""
        from raysp.explorers.fitting import quick_r2

        return quick_r2(np.asarray(masks, dtype=np.bool_), np.asarray(values, dtype=np.float64), self.random_state)

    # ---- ask / tell

    def start(self, n: int, random_state: int = 0) -> Self:
        """A fresh explorer with these options on `n` components; UserError when the budget cannot do."""
        least = self.least_budget(n)
        if self.budget is not None and self.budget < least:
            raise UserError("budget", self.budget, f"is too small for {self.name} on {n} components", f"the least that would do is {least}")
        return type(self)(**self.model_dump(), n=n, random_state=random_state)

    # ---- with what a model's gradients say

    @property
    def estimate_order(self) -> int:
        """The largest order of terms that it makes use of in an estimate from the model's gradients; 0 for an explorer that begins without one."""
        return 0

    def with_estimate(self, estimate: FourierSurrogate) -> Self:  # noqa: ARG002  for those that begin with one
        """Itself, once started, with an estimate of the game had elsewhere."""
        return self

    # ---- with guesses of effects

    @property
    def takes_hints(self) -> bool:
        """Whether it fits better for guesses of effects."""
        return False

    @property
    def hinted(self) -> bool:
        """Whether it was told any."""
        return False

    def with_hints(self, hints: Floats) -> Self:  # noqa: ARG002  for those that take them
        """Itself, once started, with guesses of effects by several methods, float64 `(methods, queries, n)`, as `Game.hints`."""
        return self

    # ---- as an estimator on values somebody else measured

    def fit(self, masks: object, values: object) -> Self:
        """Learn from given masks (bool, `(m, n)`) and values (`(m,)`); returns self. Errors as `tell`."""
        array = np.asarray(masks)
        fitted = type(self)(**self.model_dump(), n=array.shape[1] if array.ndim == 2 else None, random_state=self.random_state)
        fitted.tell(masks, values)
        self._findings = fitted.result()
        return self

    @property
    def findings(self) -> Findings:
        """What `fit` found."""
        if self._findings is None:
            raise ValueError(f"{type(self).__name__} is not fitted: call fit(masks, values) first")
        return self._findings

    def predict(self, masks: object) -> Values:
        """The fitted surrogate's values (float64, `(m,)`) for masks (bool, `(m, n)`)."""
        surrogate = self.findings.surrogate
        return surrogate.predict(check_masks(masks, surrogate.n))

    def score(self, masks: object, values: object) -> float:
        """R² of the fitted surrogate on these masks, never clipped."""
        truth = np.asarray(values, dtype=np.float64)
        return r_squared(truth, self.predict(masks))

    def interactions(self, index: str = "bii", max_order: int | None = None, min_order: int = 1) -> pa.Table:
        """The fitted surrogate's sets, as `Surrogate.interactions`."""
        return self.findings.surrogate.interactions(index=index, max_order=max_order, min_order=min_order)

    @property
    def masks(self) -> Masks:
        """All masks told so far, bool `(m, n)`."""
        return np.concatenate(self._masks) if self._masks else np.zeros((0, self._started_n), dtype=np.bool_)

    @property
    def values(self) -> Values:
        """Their values, float64 `(m,)`."""
        return np.concatenate(self._values) if self._values else np.zeros(0)

    def ask(self) -> Masks:
        """The masks of the next round; the same again until they are told. Empty, `(0, n)`, when done."""
        if self._pending is None:
            asked = self._next()
            self._pending = np.zeros((0, self._started_n), dtype=np.bool_) if asked is None else asked
        return self._pending

    def tell(self, masks: object, values: object) -> None:
        """Take the values of the round asked for. ValueError on other shapes, EvaluationError on values that are not finite."""
        checked = check_masks(masks, self._started_n)
        told = np.asarray(values, dtype=np.float64)
        if told.shape != (len(checked),):
            raise ValueError(f"values have shape {told.shape}; expected ({len(checked)},) for masks of shape {checked.shape}")
        check_finite(checked, told)
        self._masks.append(checked)
        self._values.append(told)
        self._pending = None

    def done(self) -> bool:
        """Whether there is nothing more to ask."""
        return len(self.ask()) == 0

    @property
    def _started_n(self) -> int:
        if self.n is None:
            raise ValueError(f"{type(self).__name__} does not know its number of components: pass n= or call start(n)")
        return self.n
