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
from raysp.gradients import GradientReport
from raysp.masks import Masks, Values
from raysp.runs.singles import ranked
from raysp.specs.lenses import FeatureLens
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import Floats

#: The penalty of ContextCite's LASSO.
PENALTY = 0.01
#: First number of the seeds of ContextCite's masks; a smaller number of calls has the first of them.
CITED = 31
#: Seconds for one search of the solver.
SOLVING = 10.0
#: The most sources that are removed.
MOST = 5
#: The calls that a forward and a backward pass count as.
SLOPES_PRICE = 3


@dataclass(frozen=True)
class Question:
    """What a method is asked about: values of masks over n sources, the number of tokens of the answer, and what gives a gradient report and slopes of masks."""

    evaluate: Callable[[Masks], Values]
    n: int
    tokens: int = 1
    report: Callable[[], GradientReport] = GradientReport
    gate_slopes: Callable[[Masks], Floats] = np.zeros_like


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


#: From a question, a number of calls and a seed.
Method = Callable[[Question, int, int], Attribution]


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


def contextcite(asked: Question, budget: int, seed: int) -> Attribution:
    """ContextCite with so many calls."""
    masks = np.random.default_rng([CITED, seed]).random((budget, asked.n)) < 0.5
    weights, intercept = solver()[1](masks, logit(asked.evaluate(masks)), asked.tokens)
    return Attribution(lambda some: some @ weights + intercept, tuple(np.argsort(-weights, kind="stable").tolist()))


def explored(explorer: Any, asked: Question, seed: int, report: GradientReport | None = None) -> Attribution:
    """An explorer with its own masks, given a gradient report if there is one. Components are ranked by the effects by which pages and tables rank them."""
    started = explorer.start(asked.n, seed)
    started = started if report is None else started.with_gradients(report)
    while not started.done():
        masks = started.ask()
        started.tell(masks, asked.evaluate(masks))
    findings = started.result()
    surrogate: FourierSurrogate = findings.surrogate
    singles = sorted(ranked(findings.singles.to_pylist()), key=lambda single: -single.effect)
    return Attribution(
        surrogate.predict,
        tuple(single.component for single in singles),
        lambda k: raysp.best_subset(surrogate, k, "decrease", time_limit=SOLVING).components,
    )


def proxyspex(focus: str) -> Method:
    """The default explorer with a focus. As in a run, few calls include the pass that gives the priors of a gradient report."""

    def method(asked: Question, budget: int, seed: int) -> Attribution:
        if budget > FeatureLens.priors_up_to * asked.n:
            return explored(raysp.ProxySPEX(budget=budget, focus=focus), asked, seed)
        return explored(raysp.ProxySPEX(budget=budget - SLOPES_PRICE, focus=focus), asked, seed, asked.report())

    return method


def gates(asked: Question, budget: int, seed: int) -> Attribution:  # noqa: ARG001  one pass, whatever the number of calls
    """The slopes of attention gates at the intact context: no masks at all."""
    effects = asked.report().effects["attention_gates"][0]
    return Attribution(lambda masks: masks @ effects, tuple(np.argsort(-effects, kind="stable").tolist()))


def greedy(asked: Question, budget: int, seed: int) -> Attribution:  # noqa: ARG001  no chance in it
    """Sources removed one after the other by the slopes at what is left, and measured; those of the intact context predict values."""
    slopes = asked.report().effects["attention_gates"][0]
    removed: list[int] = raysp.greedy_removals(asked, MOST, tries=max(budget // MOST - SLOPES_PRICE, 1))["components"].to_pylist()[-1]
    rest = (i for i in np.argsort(-slopes, kind="stable").tolist() if i not in removed)
    return Attribution(lambda masks: masks @ slopes, (*removed, *rest))


METHODS: dict[str, Method] = {
    "contextcite": contextcite,
    "both": proxyspex("both"),
    "average": proxyspex("average"),
    "intact": proxyspex("intact"),
    "gates": gates,
    "greedy": greedy,
    "screen": lambda asked, budget, seed: explored(raysp.Screen(budget=budget), asked, seed),
}
