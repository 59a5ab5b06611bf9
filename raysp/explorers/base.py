"""What every explorer has in common: it asks for masks, is told their values, and reports what it found.

An explorer knows nothing of models, of Ray or of the store. It is built from options (`raysp.specs.explorers`), which never change; all state is its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.explorers.samples import Sample, random_rows
from raysp.masks import Masks, Values, check_finite, check_masks
from raysp.sampling.draws import averaged
from raysp.specs.explorers import ExplorerOptions, Keep
from raysp.spectral.fourier import FourierSurrogate, is_complete
from raysp.spectral.regression import r_squared
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.gradients import GradientReport


@dataclass(frozen=True)
class Findings:
    """What an explorer found.

    `singles` has columns component int32, value double (the single effect), lo, hi double, method string ('removed' for exact single
    ablations, 'lasso' for estimates). `table` is a `FourierSurrogate.interactions` table of order 2 and more in the explorer's own index,
    the significant first, then the strongest. `index` names that index. `notes` are sentences for the reader.
    """

    surrogate: FourierSurrogate
    singles: pa.Table
    table: pa.Table
    index: str
    notes: tuple[str, ...] = ()
    diagnostics: dict[str, Any] = field(default_factory=dict)

    def interactions(self, index: str = "bii", max_order: int | None = None, min_order: int = 1) -> pa.Table:
        """The surrogate's sets in any index, as `FourierSurrogate.interactions`."""
        return self.surrogate.interactions(index, max_order, min_order)


O_co = TypeVar("O_co", bound=ExplorerOptions, covariant=True)


class Explorer(ABC, Generic[O_co]):
    """An estimator with an ask/tell side. Keyword arguments are the fields of its options, all optional.

    `fit(masks, values)` learns from measurements that exist; `start(n)` followed by `ask` and `tell` chooses what to measure. `n`, the number of components,
    is needed to ask without `start`; `random_state` (0 without one) seeds everything random. In a spec an explorer stands for its options.
    """

    #: The model that validates its options.
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
        self._pending: Masks | None = None
        self._findings: Findings | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "Options"):
            fields = {name: field.get_default() for name, field in cls.Options.model_fields.items() if name != "kind"}
            parameters = [Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in {**fields, "n": None, "random_state": None}.items()]
            cls.__signature__ = Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]  what help() shows, instead of **options

    @classmethod
    def of(cls, options: ExplorerOptions, n: int | None = None, random_state: int | None = None) -> Self:
        """An explorer with these options, which are those of its kind."""
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
        """Its options, for a spec. UserError if it has a seed or a number of components of its own: a spec states its own seed, and its game has the components."""
        if self.n is not None or self._seeded:
            name, value = ("n", self.n) if self.n is not None else ("random_state", self.random_state)
            raise UserError(f"explorer.{name}", value, "has no place in a spec", "leave it out and set seed" if name == "random_state" else "leave it out")
        return self.options

    @property
    def keep_probability(self) -> float:
        """P(keep) of the masks that the surrogate is meant to predict and is scored on."""
        return 0.5

    # ---- what a subclass provides

    @abstractmethod
    def least_budget(self, n: int) -> int:
        """The fewest evaluations that give an answer for `n` components."""

    @abstractmethod
    def planned(self, n: int) -> int:
        """The evaluations that a run on `n` components asks for (an upper bound where rounds adapt)."""

    @abstractmethod
    def _next(self) -> Masks | None:
        """The masks of the next round, or None when done. May look at `self.masks` and `self.values`."""

    @abstractmethod
    def result(self) -> Findings:
        """What was found from all values told so far."""

    @abstractmethod
    def query_result(self, query: int) -> Findings:
        """What was found for one column of `outputs`, on the masks chosen for the value."""

    def resolved(self, labels: Sequence[str], keep: Keep | None) -> ExplorerOptions:  # noqa: ARG002  for those whose options depend on the game
        """Its options with what only a game can settle: `labels` of the components, and the P(keep) that suits the game where none was chosen."""
        return self.options

    def check(self) -> None:
        """UserError for options that contradict each other or do not fit the number of components."""

    def query_notes(self) -> tuple[str, ...]:
        """Remarks on how the queries are explained."""
        return ()

    def sample(self) -> Sample:
        """The rows that the surrogate is fitted to, with the P(keep) that they were drawn with."""
        keep_probability = self.result().surrogate.keep_probability
        rows = random_rows(self.masks, keep_probability, self.weights)
        return Sample(self.masks[rows], self.values[rows], 1, keep_probability, seed=self.random_state, weights=self.weights[rows])

    def preview(self, masks: object, values: object) -> float | None:
        """R² so far, for a progress bar: a quick fit on four fifths of these evaluations scored on the rest; None where that is not informative."""
        from raysp.explorers.fitting import quick_r2

        return quick_r2(np.asarray(masks, dtype=np.bool_), np.asarray(values, dtype=np.float64), self.random_state)

    # ---- ask and tell

    def start(self, n: int, random_state: int = 0, *, labels: Sequence[str] = (), keep: Keep | None = None) -> Self:
        """A new explorer with these options on `n` components, `labels` and `keep` as for `resolved`.

        UserError for a budget that is too small, and as `check`.
        """
        started = type(self).of(self.resolved(labels, keep), n, random_state)
        budget, least = started.options.budget, started.least_budget(n)
        if budget is not None and budget < least:
            raise UserError("budget", budget, f"is too small for {self.name} on {n} components", f"give at least {least}")
        started.check()
        return started

    def ask(self) -> Masks:
        """The masks of the next round, bool `(m, n)`; the same until they are told. Empty, `(0, n)`, when done."""
        if self._pending is None:
            asked = self._next()
            self._pending = np.zeros((0, self._started_n), dtype=np.bool_) if asked is None else asked
        return self._pending

    def tell(self, masks: object, outputs: object, weights: object = None) -> None:
        """Take what masks (bool, `(m, n)`) gave: values `(m,)`, or outputs `(m, queries)`, whose mean is the value.

        `weights` `(m,)` are the numbers of measurements that each row is the mean of, one without. ValueError for other shapes or weights that are not
        positive, EvaluationError for numbers that are not finite.
        """
        checked, told, counts = checked_rows(masks, self._started_n, outputs, weights)
        self._masks.append(checked)
        self._outputs.append(told)
        self._weights.append(counts)
        self._pending = None

    def certain_masks(self) -> Masks:
        """Masks (bool, `(m, n)`) that it will ask for whatever the values are, before any were told: those of the first round at least."""
        return self.ask()

    def done(self) -> bool:
        """Whether there is nothing more to ask."""
        return len(self.ask()) == 0

    def results_by_query(self) -> Iterator[Findings]:
        """`query_result` of one query after the other; the only one of a game without queries is its value."""
        for query in range(self.outputs.shape[1]):
            yield self.query_result(query)

    @property
    def masks(self) -> Masks:
        """All masks told so far, bool `(m, n)`."""
        return np.concatenate(self._masks) if self._masks else np.zeros((0, self._started_n), dtype=np.bool_)

    @property
    def outputs(self) -> Floats:
        """What they gave, float64 `(m, queries)`: one column where there are no queries."""
        return np.concatenate(self._outputs) if self._outputs else np.zeros((0, 1))

    @property
    def values(self) -> Values:
        """Their values, float64 `(m,)`: the mean of their outputs."""
        return self.outputs.mean(axis=1)

    @property
    def weights(self) -> Values:
        """The number of measurements behind each, float64 `(m,)`."""
        return np.concatenate(self._weights) if self._weights else np.zeros(0)

    @property
    def fitted_rows(self) -> NDArray[np.bool_]:
        """Which of the masks told the surrogate is fitted to, bool `(m,)`."""
        return np.ones(len(self.masks), dtype=np.bool_)

    @property
    def complete(self) -> bool:
        """Whether all 2^n masks were told, each measured once: every index is then exact. Means of several measurements are taken to have noise."""
        return bool(np.all(self.weights == 1)) and is_complete(self.masks)

    @property
    def _started_n(self) -> int:
        if self.n is None:
            raise ValueError(f"{type(self).__name__} does not know its number of components: pass n= or call start(n)")
        return self.n

    # ---- gradients of the model

    @property
    def gradient_order(self) -> int:
        """The largest order of terms that it can use from a `GradientReport`; 0 if it uses none."""
        return 0

    @property
    def requires_gradients(self) -> bool:
        """Whether it needs such a report."""
        return False

    def with_gradients(self, report: GradientReport) -> Self:  # noqa: ARG002  for those that use one
        """Itself, once started, with a report of the model's gradients. UserError if it needs what the report lacks."""
        return self

    # ---- as an estimator on measurements that exist

    def fit(self, masks: object, values: object, weights: object = None) -> Self:
        """Learn from masks (bool, `(m, n)`), their values (`(m,)`, or outputs `(m, queries)`) and weights (`(m,)`); returns self.

        A weight is the number of measurements that a value is the mean of, one without; masks given several times are one row with the sum of their
        weights. Raises as `tell`; ValueError if masks are missing that the explorer needs.
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
        """What `fit` found."""
        if self._findings is None:
            raise ValueError(f"{type(self).__name__} is not fitted: call fit(masks, values) first")
        return self._findings

    def predict(self, masks: object) -> Values:
        """The fitted surrogate's values (float64, `(m,)`) for masks (bool, `(m, n)`)."""
        surrogate = self.findings.surrogate
        return surrogate.predict(check_masks(masks, surrogate.n))

    def score(self, masks: object, values: object, weights: object = None) -> float:
        """R² of the fitted surrogate on these masks, never clipped; rows count by their weights (`(m,)`)."""
        truth = np.asarray(values, dtype=np.float64)
        return r_squared(truth, self.predict(masks), None if weights is None else np.asarray(weights, dtype=np.float64))

    def interactions(self, index: str = "bii", max_order: int | None = None, min_order: int = 1) -> pa.Table:
        """The fitted surrogate's sets, as `FourierSurrogate.interactions`."""
        return self.findings.surrogate.interactions(index=index, max_order=max_order, min_order=min_order)


def checked_rows(masks: object, n: int, outputs: object, weights: object = None) -> tuple[Masks, Floats, Values]:
    """Masks bool `(m, n)`, outputs float64 `(m, queries)` and weights float64 `(m,)`, checked as in `Explorer.tell`."""
    checked = check_masks(masks, n)
    told = np.asarray(outputs, dtype=np.float64)
    if told.ndim not in {1, 2} or len(told) != len(checked) or not told.shape[-1] >= (told.ndim == 2):
        raise ValueError(f"values have shape {told.shape}; expected ({len(checked)},) or ({len(checked)}, queries) for masks of shape {checked.shape}")
    told = told[:, None] if told.ndim == 1 else told
    counts = np.ones(len(checked)) if weights is None else np.asarray(weights, dtype=np.float64)
    if counts.shape != (len(checked),):
        raise ValueError(f"weights have shape {counts.shape}; expected ({len(checked)},) for masks of shape {checked.shape}")
    if not (np.isfinite(counts).all() and (counts > 0).all()):
        raise ValueError("weights must be positive and finite: the number of measurements that each value is the mean of")
    check_finite(checked, told.mean(axis=1))
    return checked, told, counts
