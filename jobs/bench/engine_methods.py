"""The methods that `engine.py` compares: raysp's by the names that its options have, and the peers."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import ValidationError

import raysp
from jobs.bench.engine_games import BenchGame
from jobs.bench.engine_peers import MAX_ORDER, PEERS, Fitted, Task, UnavailableError, quiet

#: raysp's proxies that are methods of their own.
PROXIES = ("auto", "trees", "kernel", "linear", "mlp")


def options(task: Task) -> dict[str, Any]:
    """What a task asks of an explorer beyond its defaults."""
    kept = {} if task.game.keep == 0.5 else {"keep": task.game.keep}
    return {"max_order": MAX_ORDER, **kept}


def explorer(name: str, **chosen: Any) -> Any:
    """An explorer with these options; UnavailableError if raysp does not have it."""
    try:
        return getattr(raysp, name)(**chosen)
    except AttributeError as error:
        raise UnavailableError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UnavailableError(f"raysp.{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def terms(findings: Any) -> int | None:
    """The number of terms of a surrogate."""
    known = findings.diagnostics.get("terms")
    sets = getattr(findings.surrogate, "sets", None)
    return int(known) if known is not None else None if sets is None else len(sets)


def proxyspex(task: Task, proxy: str) -> Fitted:
    """ProxySPEX on the shared masks."""
    started = explorer("ProxySPEX", proxy=proxy, random_state=task.seed, **options(task))
    masks, values = task.sample
    began = time.perf_counter()
    started.fit(masks, values)
    seconds = time.perf_counter() - began
    return Fitted(started.predict, seconds, terms(started.findings), len(values))


def asked_findings(started: Any, game: BenchGame) -> tuple[Any, float, int]:
    """The findings of an explorer that asks for its own masks, its seconds excluding the game, and its number of evaluations."""
    seconds, evaluations = 0.0, 0
    while True:
        began = time.perf_counter()
        masks = None if started.done() else started.ask()
        seconds += time.perf_counter() - began
        if masks is None:
            break
        values = game(masks)
        evaluations += len(values)
        began = time.perf_counter()
        started.tell(masks, values)
        seconds += time.perf_counter() - began
    began = time.perf_counter()
    findings = started.result()
    return findings, seconds + time.perf_counter() - began, evaluations


def asked(started: Any, task: Task) -> Fitted:
    """The fit of an explorer that asks for its own masks."""
    findings, seconds, evaluations = asked_findings(started, task.game)
    return Fitted(findings.surrogate.predict, seconds, terms(findings), evaluations)


def adaptive(task: Task) -> Fitted:
    """ProxySPEX in rounds, told the budget at the start."""
    chosen = explorer("ProxySPEX", proxy="auto", adaptive=True, budget=task.budget, **options(task))
    return asked(chosen.start(task.game.n, task.seed), task)


def spex(task: Task) -> Fitted:
    """SPEX with the game's b, whose own design is far larger than the others' budgets."""
    chosen = explorer("SPEX", max_order=MAX_ORDER, b=task.game.spex)
    return asked(chosen.start(task.game.n, task.seed), task)


def singles(task: Task) -> Fitted:
    """The LASSO on single components."""
    from raysp.explorers import fit_singles

    masks, values = task.sample
    began = time.perf_counter()
    surrogate = fit_singles(masks, values, task.seed)
    seconds = time.perf_counter() - began
    return Fitted(surrogate.predict, seconds, task.game.n + 1, len(values))


METHODS: dict[str, Callable[[Task], Fitted]] = {
    **{name: partial(proxyspex, proxy=name) for name in PROXIES},
    "adaptive": adaptive,
    "spex": spex,
    "singles": singles,
    **PEERS,
}
#: The methods run by default.
USUAL = tuple(name for name in METHODS if name not in ("linear", "mlp"))


def fit(method: str, task: Task) -> tuple[Fitted, float]:
    """A fit and its held-out R², never clipped; UnavailableError for an unavailable method."""
    from raysp.explorers import r_squared

    with quiet():
        fitted = METHODS[method](task)
        masks, truth = task.held_out()
        return fitted, r_squared(truth, fitted.predict(masks))
