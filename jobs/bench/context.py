"""ContextCite's protocol: which sentences of a context a short answer rests on, by how well they predict the answer and by what removing them costs.

    python -m jobs.bench context [--quick] [--contexts 60] [--methods contextcite,both] [--budgets 32,64,128,256] [--output FILE]

Contexts of about twenty sentences are made by `context_texts.py`; the value is the log-probability of the answer under the embedded model in float32. Every method
has its own masks: ContextCite uniform ones, raysp those that `auto` draws with a focus on the intact input, on the average over contexts or on both, or `screen`.
Where a run would start from the model's gradients, `auto` does, and has three calls less: a forward and a backward pass. `gates` are these gradients alone,
and `greedy` removes sources by them one after the other (`raysp.greedy_removals`), with a pass each and the evaluations that
the calls leave for five removals.
A row is a context, a method and a number of calls: `lds` is Spearman's correlation of its predictions with the values of fresh uniform masks; `drop_k` is how far
the log-probability falls without the k components that it ranks first, by the effects that pages rank by, and `best_k` the same for the set that `best_subset`
finds under the surrogate. The summary has means and standard errors, and each goal: what a method has with its fewest calls, less what ContextCite has with
the most.

Values are kept between runs (see `kept.py`): a second run measures slopes alone.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench.context_methods import METHODS, Attribution, Question, solver
from jobs.bench.context_texts import QuestionedContext, context
from jobs.bench.engine_model_games import Prompt
from jobs.bench.kept import Kept
from jobs.bench.rows import write_all
from raysp.masks import Masks, Values
from raysp.specs.lenses import FeatureLens

BUDGETS, KS, CONTEXTS, FRESH = (32, 64, 128, 256), (1, 3, 5), 60, 64
#: With `--quick`: contexts, and numbers of calls by method (ContextCite's masks of fewer calls are among those of more).
QUICK_CONTEXTS, QUICK_BUDGETS = 4, {"contextcite": BUDGETS, "both": BUDGETS[:1], "average": BUDGETS[:1], "greedy": BUDGETS[:1], "gates": (3,)}
TEMPLATE, SEED, EXAM = "{prompt}\nQuestion: {question}\nAnswer: ", 0, 32
#: The peer that the other methods are compared with.
PEER = "contextcite"

Row = dict[str, Any]


class ContextGame:
    """A context as a function of masks, with the number of tokens of its answer."""

    def __init__(self, asked: QuestionedContext) -> None:
        lens = FeatureLens(
            prompt=asked.text, template=TEMPLATE + asked.begins, question=asked.question, target=asked.answer, value="logprob", dtype="float32", unit="sentence"
        )
        self.name, self._prompt = asked.name, Prompt(lens)
        self.value = Kept(self._prompt.name, self._prompt)

    @property
    def n(self) -> int:
        """The number of sentences."""
        return int(self._prompt.game.n)

    @property
    def tokens(self) -> int:
        """The number of tokens of the answer."""
        return len(self._prompt.game.answers.target_ids)

    @property
    def asked(self) -> Question:
        """What methods are asked; a gradient report is that of one forward and one backward pass."""
        return Question(self.value, self.n, self.tokens, lambda: self._prompt.game.gradient_report(0), self._prompt.gate_slopes)


def correlation(one: Values, other: Values) -> float:
    """Spearman's correlation; 0 if either does not vary."""
    from scipy import stats

    ranks: Any = stats.rankdata
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1]) if np.ptp(one) > 0 and np.ptp(other) > 0 else 0.0


def scores(found: Attribution, value: Callable[[Masks], Values], n: int, ks: Iterable[int] = KS) -> Row:
    """The LDS of an attribution on fresh uniform masks, and the drops of the value (`(m,)` of masks `(m, n)`) without its top k."""
    exam = np.random.default_rng([EXAM, n]).random((FRESH, n)) < 0.5
    row: Row = {"lds": correlation(found.predict(exam), value(exam))}
    removals = {f"{'drop' if way == 'ranking' else 'best'}_{k}": removed for k in ks for way, removed in found.removals(k).items()}
    masks = np.ones((len(removals) + 1, n), dtype=np.bool_)
    for mask, removed in zip(masks[1:], removals.values(), strict=True):
        mask[list(removed)] = False
    values = value(masks)
    return row | dict(zip(removals, (values[0] - values[1:]).tolist(), strict=True))


def rows(asked: Iterable[QuestionedContext], plan: Mapping[str, Iterable[int]]) -> Iterator[Row]:
    """A row for each context, method and number of calls of the plan."""
    for each in asked:
        game = ContextGame(each)
        for method, budgets in plan.items():
            for budget in budgets:
                found = METHODS[method](game.asked, budget, SEED)
                yield {"context": each.name, "n": game.n, "method": method, "calls": budget, **scores(found, game.value, game.n)}


def summary(found: Iterable[Row]) -> Row:
    """Means and standard errors over contexts by method and calls, and each goal's figure: a mean difference over contexts with its standard error."""
    groups: dict[tuple[str, int], dict[str, Row]] = defaultdict(dict)
    for row in found:
        groups[row["method"], row["calls"]][row["context"]] = row
    told: Row = {"row": "summary", "lasso": solver()[0]}
    for (method, calls), by_context in groups.items():
        names = [name for name in next(iter(by_context.values())) if name == "lds" or name.startswith(("drop_", "best_"))]
        told[f"{method} {calls}"] = {"contexts": len(by_context)} | {name: mean_and_error([row[name] for row in by_context.values()]) for name in names}
    most = max((calls for method, calls in groups if method == PEER), default=0)
    for method in dict.fromkeys(method for method, _ in groups if method != PEER):
        few = min(calls for name, calls in groups if name == method)
        told |= _goals(f"{method} {few} less {PEER} {most}", groups[method, few], groups.get((PEER, most), {}))
    return told


def _goals(what: str, ours: Mapping[str, Row], theirs: Mapping[str, Row]) -> Row:
    """How far rows by context are above others: mean differences with their standard errors."""
    told: Row = {}
    shared = [context for context in ours if context in theirs]
    for name in ours[shared[0]] if shared else ():
        if name == "lds" or name.startswith(("drop_", "best_")):
            gain, error = mean_and_error([ours[context][name] - theirs[context][name.replace("best_", "drop_")] for context in shared])
            told[f"goal {name}: {what}"] = {"gain": gain, "error": error, "met": gain >= 0, "within_errors": gain >= -2 * error}
    return told


def mean_and_error(figures: list[float]) -> tuple[float, float]:
    """The mean of figures and its standard error (0 for one figure)."""
    return float(np.mean(figures)), float(np.std(figures, ddof=1) / np.sqrt(len(figures))) if len(figures) > 1 else 0.0


def numbered(text: str) -> list[int]:
    """The numbers of contexts in a text: so many first ones, or ranges `from:to` with commas."""
    bounds = [[int(part) for part in some.split(":")] for some in text.split(",")]
    return [number for each in bounds for number in range(*each)]


def main() -> None:
    """Print every row, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CONTEXTS} contexts and the calls that the goals are about: under six minutes")
    parser.add_argument("--contexts", help=f"how many contexts, or ranges such as 0:13,30:43 ({CONTEXTS})")
    parser.add_argument("--methods", default=",".join(METHODS), help="the methods, with commas (%(default)s)")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="numbers of calls, with commas (%(default)s)")
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    chosen = numbered(options.contexts or str(QUICK_CONTEXTS if options.quick else CONTEXTS))
    plan = QUICK_BUDGETS if options.quick else {method: tuple(map(int, options.budgets.split(","))) for method in options.methods.split(",")}
    if unknown := set(plan) - set(METHODS):
        parser.error(f"no such method: {', '.join(sorted(unknown))}")
    write_all(({"row": "context"} | row for row in rows(map(context, chosen), plan)), summary, options.output)


if __name__ == "__main__":
    main()
