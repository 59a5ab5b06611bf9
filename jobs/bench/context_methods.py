"""Attribution methods that `context.py` compares: ContextCite's estimator, and raysp's explorers, each on masks of its own.

ContextCite (Cohen-Wang et al. 2024) fits a LASSO to the logit of the answer's probability on masks that keep half of the sources. The few lines here give the
weights of the package context-cite, which is used if it is installed.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

import raysp
from jobs.bench.engine_peers import quiet
from raysp.masks import Masks, Values
from raysp.runs.singles import ranked
from raysp.spectral.fourier import FourierSurrogate

#: The penalty of ContextCite's LASSO.
PENALTY = 0.01
#: First number of the seeds of ContextCite's masks; a smaller number of calls has the first of them.
CITED = 31
#: Seconds for one search of the solver.
SOLVING = 10.0


@dataclass(frozen=True)
class Attribution:
    """What a method says: values of masks, components from the most supportive on, and the best set of k to remove (None: the first k of these)."""

    predict: Callable[[Masks], Values]
    ranking: tuple[int, ...]
    best: Callable[[int], Sequence[int]] | None = None

    def removals(self, k: int) -> dict[str, tuple[int, ...]]:
        """The k components to remove, by the way in which they are chosen."""
        by_ranking = {"ranking": self.ranking[:k]}
        return by_ranking if self.best is None else by_ranking | {"best_subset": tuple(self.best(k))}


def logit(logprobs: Values) -> Values:
    """The logarithm of the odds of an answer, given the logarithms of its probabilities, `(m,)`."""
    return logprobs - np.log(-np.expm1(np.minimum(logprobs, -1e-12)))


def lasso_weights(masks: Masks, targets: Values, tokens: int = 1) -> tuple[Values, float]:
    """Weights `(n,)` and intercept of ContextCite's LASSO for an answer of so many tokens: on standardised masks, rescaled to kept and removed."""
    from sklearn.linear_model import Lasso

    columns = masks.astype(np.float32)
    mean, spread = columns.mean(axis=0), columns.std(axis=0)
    spread[spread == 0] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted: Any = Lasso(alpha=PENALTY, random_state=0).fit((columns - mean) / spread, targets / tokens)
    weights = fitted.coef_ / spread
    return weights * tokens, float((fitted.intercept_ - mean @ weights) * tokens)


def solver() -> tuple[str, Callable[[Masks, Values, int], tuple[Values, float]]]:
    """The package's own solver if it is installed, else `lasso_weights`; with its name."""
    try:
        with quiet():
            theirs: Any = import_module("context_cite.solver").LassoRegression(PENALTY)
    except ImportError:
        return "scikit-learn", lasso_weights
    return "context-cite", theirs.fit


def contextcite(value: Callable[[Masks], Values], n: int, budget: int, seed: int, tokens: int) -> Attribution:
    """ContextCite with so many calls."""
    masks = np.random.default_rng([CITED, seed]).random((budget, n)) < 0.5
    weights, intercept = solver()[1](masks, logit(value(masks)), tokens)
    return Attribution(lambda some: some @ weights + intercept, tuple(np.argsort(-weights, kind="stable").tolist()))


def explored(explorer: Any, value: Callable[[Masks], Values], n: int, seed: int) -> Attribution:
    """An explorer with its own masks. Components are ranked by the effects by which pages and tables rank them."""
    started = explorer.start(n, seed)
    while not started.done():
        masks = started.ask()
        started.tell(masks, value(masks))
    findings = started.result()
    surrogate: FourierSurrogate = findings.surrogate
    singles = sorted(ranked(findings.singles.to_pylist()), key=lambda single: -single.effect)
    return Attribution(
        surrogate.predict,
        tuple(single.component for single in singles),
        lambda k: raysp.best_subset(surrogate, k, "decrease", time_limit=SOLVING).components,
    )


def proxyspex(focus: str) -> Callable[[Callable[[Masks], Values], int, int, int, int], Attribution]:
    """The default explorer with a focus."""
    return lambda value, n, budget, seed, _: explored(raysp.ProxySPEX(budget=budget, focus=focus), value, n, seed)


#: Methods by name: from a value of masks, n, budget, seed and tokens of the answer.
METHODS: dict[str, Callable[[Callable[[Masks], Values], int, int, int, int], Attribution]] = {
    "contextcite": contextcite,
    "both": proxyspex("both"),
    "average": proxyspex("average"),
    "intact": proxyspex("intact"),
    "screen": lambda value, n, budget, seed, _: explored(raysp.Screen(budget=budget), value, n, seed),
}
