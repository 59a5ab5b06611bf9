"""The interface of explorers: ask for masks, tell their values, and return the findings.

Explorers are independent of models, Ray and the store. They are built from immutable options (`raysp.specs.explorers`) and hold all further state
themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.explorers.samples import Sample, random_rows
from raysp.masks import Masks, Values, check_finite, check_masks
from raysp.sampling.matching import averaged
from raysp.specs.explorers import ExplorerOptions, Focus, Keep
from raysp.spectral.fourier import FourierSurrogate, is_complete
from raysp.spectral.regression import r_squared
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.gradients import GradientReport


@dataclass(frozen=True)
class Findings:
    """The results of an explorer.

    `singles` has columns component int32, value double (the single effect), lo and hi double, method string (such as 'removed' for exact single ablations
    or 'lasso' for estimates). `table` is a `FourierSurrogate.interactions` table of orders 2 and higher in the explorer's own index, named by `index`:
    significant sets first, as there. `notes` are sentences for the user. `focus` says which readings the surrogate is meant for.
    """

    surrogate: FourierSurrogate
    singles: pa.Table
    table: pa.Table
    index: str
    notes: tuple[str, ...] = ()
    diagnostics: dict[str, Any] = field(default_factory=dict)
    focus: Focus = "average"

    def interactions(self, index: str = "bii", max_order: int | None = None, min_order: int = 1) -> pa.Table:
        """The interactions of the surrogate in any index; see `FourierSurrogate.interactions`."""
        return self.surrogate.interactions(index, max_order, min_order)


O_co = TypeVar("O_co", bound=ExplorerOptions, covariant=True)


class Explorer(ABC, Generic[O_co]):
    """An estimator with an ask/tell interface. Keyword arguments are the fields of its options, all optional.

    `fit(masks, values)` learns from existing measurements; `start(n)` followed by `ask` and `tell` chooses what to measure. `n`, the number of components,
    is required to ask without `start`. `random_state` (default 0) seeds all randomness. In a spec, an explorer stands for its options.
    """

    #: The Pydantic model that validates the options.
    Options: type[O_co]

    def __init__(self, *, n: int | None = None, random_state: int | None = None, **options: Any) -> None:
        if random_state is not None and random_state < 0:
            raise UserError("random_state", random_state, "is negative", "give an integer from 0")
        self.options: O_co = self.Options(**options)
        self.n, self.random_state = n, random_state or 0
        self._seeded = random_state is not None
        self._masks: list[Masks] = []
        self._outputs: list[Floats] = []
        self._weights: list[Values] = []
        self._slopes: list[Floats | None] = []
        self._pending: Masks | None = None
        self._findings: Findings | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "Options"):
            fields = {name: field.get_default() for name, field in cls.Options.model_fields.items() if name != "kind"}
            parameters = [Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in {**fields, "n": None, "random_state": None}.items()]
            cls.__signature__ = Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]  shown by help() instead of **options

    @classmethod
    def of(cls, options: ExplorerOptions, n: int | None = None, random_state: int | None = None) -> Self:
        """Create an explorer from options of its own kind."""
        return cls(n=n, random_state=random_state, **options.model_dump(exclude={"kind"}, exclude_unset=True))

    def __repr__(self) -> str:
        given = {name: value for name, value in self.options.model_dump(exclude_defaults=True).items() if name != "kind"}
        own = ({} if self.n is None else {"n": self.n}) | ({"random_state": self.random_state} if self._seeded else {})
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in {**given, **own}.items())})"

    @property
    def name(self) -> str:
        """The explorer's name in specs and SQL."""
        return self.options.kind

    def spec_options(self) -> ExplorerOptions:
        """The options, for use in a spec.

        Raises UserError if `n` or `random_state` was given: a spec has its own seed, and its game determines the number of components.
        """
        if self.n is not None or self._seeded:
            name, value = ("n", self.n) if self.n is not None else ("random_state", self.random_state)
            raise UserError(f"explorer.{name}", value, "cannot be set in a spec", "leave it out and set seed" if name == "random_state" else "leave it out")
        return self.options

    @property
    def keep_probability(self) -> float:
        """P(keep) of the masks that the surrogate is meant to predict, and on which it is scored."""
        return 0.5

    # ---- provided by subclasses

    @abstractmethod
    def least_budget(self, n: int) -> int:
        """The minimum number of evaluations that gives a result for `n` components."""

    @abstractmethod
    def planned(self, n: int) -> int:
        """The number of evaluations that a run on `n` components requests (an upper bound for adaptive explorers)."""

    @abstractmethod
    def _next(self) -> Masks | None:
        """The masks of the next round, or None when done. May depend on `self.masks` and `self.values`."""

    @abstractmethod
    def result(self) -> Findings:
        """The findings from all measurements so far."""

    @abstractmethod
    def query_result(self, query: int) -> Findings:
        """The findings for one column of `outputs`, on the masks that were chosen for the value."""

    def resolved(self, labels: Sequence[str], keep: Keep | None, focus: Focus | None) -> ExplorerOptions:  # noqa: ARG002  used by explorers whose options depend on the game
        """The options completed from the game: its component `labels`, and the P(keep) and the focus that it suggests if none was chosen."""
        return self.options

    def check(self) -> None:
        """Raise UserError if options contradict each other or do not match the number of components."""

    def query_notes(self) -> tuple[str, ...]:
        """Notes on how the queries are explained."""
        return ()

    def sample(self) -> Sample:
        """The rows to which the surrogate is fitted, with the P(keep) from which they were drawn."""
        keep_probability = self.result().surrogate.keep_probability
        rows = random_rows(self.masks, keep_probability, self.weights)
        return Sample(self.masks[rows], self.values[rows], 1, keep_probability, seed=self.random_state, weights=self.weights[rows])

    @property
    def importance(self) -> Values:
        """How much each row counts where masks drawn with P(keep) are assumed, float64 `(m,)`; 0 for rows that were not drawn at random."""
        return random_rows(self.masks, self.keep_probability, self.weights).astype(np.float64)

    def preview(self, masks: object, values: object) -> float | None:
        """A quick estimate of R² for a progress bar, fitted to four fifths of the evaluations and scored on the rest; None if it is not informative."""
        from raysp.explorers.fitting import quick_r2

        return quick_r2(np.asarray(masks, dtype=np.bool_), np.asarray(values, dtype=np.float64), self.random_state)

    # ---- ask and tell

    def start(self, n: int, random_state: int = 0, *, labels: Sequence[str] = (), keep: Keep | None = None, focus: Focus | None = None) -> Self:
        """Create a new explorer with the same options for `n` components; `labels`, `keep` and `focus` are as in `resolved`.

        Raises UserError if the budget is too small, and as `check` does.
        """
        started = type(self).of(self.resolved(labels, keep, focus), n, random_state)
        budget, least = started.options.budget, started.least_budget(n)
        if budget is not None and budget < least:
            raise UserError("budget", budget, f"is too small for {self.name} on {n} components", f"give at least {least}")
        started.check()
        return started

    def ask(self) -> Masks:
        """Return the masks of the next round, bool `(m, n)`, unchanged until `tell` is called. Empty, `(0, n)`, when done."""
        if self._pending is None:
            asked = self._next()
            self._pending = np.zeros((0, self._started_n), dtype=np.bool_) if asked is None else asked
        return self._pending

    def tell(self, masks: object, outputs: object, weights: object = None, slopes: object = None) -> None:
        """Add the measurements of masks (bool, `(m, n)`): values `(m,)`, or outputs `(m, queries)`, whose mean is the value.

        `weights` `(m,)` are the numbers of measurements that each row is the mean of (None: one each). `slopes` `(m, queries, n)` are the derivatives of
        the outputs in the gate of each component at these masks (None: not measured). Raises ValueError for other shapes or weights that are not positive,
        and EvaluationError for values that are not finite.
        """
        checked, told, counts = checked_rows(masks, self._started_n, outputs, weights)
        tangents = None if slopes is None else np.asarray(slopes, dtype=np.float64)
        if tangents is not None and tangents.shape != (*told.shape, self._started_n):
            raise ValueError(f"slopes have shape {tangents.shape}; expected {(*told.shape, self._started_n)}")
        self._slopes.append(tangents)
        self._masks.append(checked)
        self._outputs.append(told)
        self._weights.append(counts)
        self._pending = None

    def certain_masks(self) -> Masks:
        """The masks (bool, `(m, n)`) that will be requested regardless of the values, at least those of the first round. Valid before the first `tell`."""
        return self.ask()

    def done(self) -> bool:
        """Whether all masks have been requested and measured."""
        return len(self.ask()) == 0

    def results_by_query(self) -> Iterator[Findings]:
        """Yield `query_result` for each query; a game without queries has one, its value."""
        for query in range(self.outputs.shape[1]):
            yield self.query_result(query)

    @property
    def masks(self) -> Masks:
        """All masks measured so far, bool `(m, n)`."""
        return np.concatenate(self._masks) if self._masks else np.zeros((0, self._started_n), dtype=np.bool_)

    @property
    def outputs(self) -> Floats:
        """The outputs of `masks`, float64 `(m, queries)`, with one column if there are no queries."""
        return np.concatenate(self._outputs) if self._outputs else np.zeros((0, 1))

    @property
    def values(self) -> Values:
        """The values of `masks`, float64 `(m,)`: the means of their outputs."""
        return self.outputs.mean(axis=1)

    @property
    def weights(self) -> Values:
        """The number of measurements behind each row, float64 `(m,)`."""
        return np.concatenate(self._weights) if self._weights else np.zeros(0)

    @property
    def slopes(self) -> Floats | None:
        """The slopes of `masks`, float64 `(m, queries, n)`, NaN in rows where they were not measured; None if they never were."""
        if all(some is None for some in self._slopes):
            return None
        queries = self.outputs.shape[1]
        return np.concatenate(
            [np.full((len(masks), queries, self._started_n), np.nan) if some is None else some for masks, some in zip(self._masks, self._slopes, strict=True)]
        )

    def slopes_of(self, query: int | None) -> Floats | None:
        """The slopes of a query (None: the mean over queries), float64 `(m, n)`; as `slopes`."""
        slopes = self.slopes
        return None if slopes is None else slopes.mean(axis=1) if query is None else slopes[:, query]

    @property
    def fitted_rows(self) -> NDArray[np.bool_]:
        """The rows of `masks` to which the surrogate is fitted, bool `(m,)`."""
        return np.ones(len(self.masks), dtype=np.bool_)

    @property
    def complete(self) -> bool:
        """Whether all 2^n masks were measured exactly once, so that every index is exact. Means of several measurements are assumed to be noisy."""
        return bool(np.all(self.weights == 1)) and is_complete(self.masks)

    @property
    def _started_n(self) -> int:
        if self.n is None:
            raise ValueError(f"n: the number of components of {type(self).__name__} is not set; pass n= or call start(n)")
        return self.n

    # ---- slopes: derivatives at the measured masks

    @property
    def uses_slopes(self) -> bool:
        """Whether slopes could be asked for, so that their price matters."""
        return False

    @property
    def asks_slopes(self) -> bool:
        """Whether the masks of the pending round are to be measured with slopes."""
        return False

    def with_slopes(self, price: float) -> Self:  # noqa: ARG002  used by explorers that learn from slopes
        """Tell a started explorer that the game can measure slopes, and the price of a value with slopes in values without; returns self."""
        return self

    # ---- answers to earlier questions

    def with_history(self, earlier: Callable[[], Sequence[FourierSurrogate]]) -> Self:  # noqa: ARG002  used by explorers that learn from them
        """Offer a started explorer the answers to earlier questions about the same components, as surrogates of their values; returns self."""
        return self

    # ---- gradients of the model

    @property
    def gradient_order(self) -> int | None:
        """The largest order of terms used from a `GradientReport`, 0 if only its priors are; None if nothing is."""
        return None

    @property
    def requires_gradients(self) -> bool:
        """Whether a `GradientReport` is required."""
        return False

    def with_gradients(self, report: GradientReport) -> Self:  # noqa: ARG002  used by explorers with gradients
        """Add a report of the model's gradients to a started explorer; returns self. Raises UserError if the report lacks required effects."""
        return self

    # ---- estimator interface for existing measurements

    def fit(self, masks: object, values: object, weights: object = None) -> Self:
        """Fit to masks (bool, `(m, n)`), their values (`(m,)`, or outputs `(m, queries)`) and weights (`(m,)`); returns self.

        A weight is the number of measurements that a value is the mean of (None: one each). Repeated masks are merged into one row with the sum of their
        weights. Raises the errors of `tell`, and ValueError if masks that the explorer needs are missing.
        """
        array = np.asarray(masks)
        n = int(array.shape[-1]) if array.ndim else 0
        rows = averaged(*checked_rows(array, n, values, weights))
        fitted = type(self).of(self.options, n, self.random_state)
        fitted.tell(*rows)
        self._findings = fitted.result()
        return self

    @property
    def findings(self) -> Findings:
        """The findings of `fit`. Raises ValueError if the explorer is not fitted."""
        if self._findings is None:
            raise ValueError(f"{type(self).__name__} is not fitted; call fit(masks, values) first")
        return self._findings

    def predict(self, masks: object) -> Values:
        """Predict the values (float64, `(m,)`) of masks (bool, `(m, n)`) with the fitted surrogate."""
        surrogate = self.findings.surrogate
        return surrogate.predict(check_masks(masks, surrogate.n))

    def score(self, masks: object, values: object, weights: object = None) -> float:
        """The R² of the fitted surrogate on masks (bool, `(m, n)`) and values (`(m,)`), not clipped, with row weights (`(m,)`; None: equal)."""
        truth = np.asarray(values, dtype=np.float64)
        return r_squared(truth, self.predict(masks), None if weights is None else np.asarray(weights, dtype=np.float64))

    def interactions(self, index: str = "bii", max_order: int | None = None, min_order: int = 1) -> pa.Table:
        """The interactions of the fitted surrogate; see `FourierSurrogate.interactions`."""
        return self.findings.surrogate.interactions(index=index, max_order=max_order, min_order=min_order)


def checked_rows(masks: object, n: int, outputs: object, weights: object = None) -> tuple[Masks, Floats, Values]:
    """Return masks bool `(m, n)`, outputs float64 `(m, queries)` and weights float64 `(m,)`, validated as described in `Explorer.tell`."""
    checked = check_masks(masks, n)
    told = np.asarray(outputs, dtype=np.float64)
    if told.ndim not in {1, 2} or len(told) != len(checked) or not told.shape[-1] >= (told.ndim == 2):
        raise ValueError(f"values have shape {told.shape}; expected ({len(checked)},) or ({len(checked)}, queries) for masks of shape {checked.shape}")
    told = told[:, None] if told.ndim == 1 else told
    counts = np.ones(len(checked)) if weights is None else np.asarray(weights, dtype=np.float64)
    if counts.shape != (len(checked),):
        raise ValueError(f"weights have shape {counts.shape}; expected ({len(checked)},) for masks of shape {checked.shape}")
    if not (np.isfinite(counts).all() and (counts > 0).all()):
        raise ValueError("weights: must be positive and finite; give the number of measurements that each value is the mean of")
    check_finite(checked, told.mean(axis=1))
    return checked, told, counts
