"""The linear datamodeling score (LDS) of data attribution methods at equal numbers of retrainings: rows for `data.py`.

Per training set: models are trained on subsets that keep each component with probability one half, each with its own seed, and methods that learn from retrainings are
given the first of them, up to a budget. They are scored on other subsets, of exactly half of the components, against the mean output of trainings from other seeds:
Spearman's correlation per query, the mean over queries, intervals from resampled queries and subsets (`raysp.validation.data_scores`). Beside them stand the ceiling (trainings
against trainings from other seeds) and the floor (shuffled components). Gradient methods pay for one training, or for as many as they average
over.

`screening` rows compare `proxyspex`, which uses the model's gradients as priors, with `unaided`, which does not, at increasing budgets, to measure how many
retrainings gradients save.

Trainings are kept (`kept.py`), so a second run repeats none.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import raysp
from jobs.bench.data_sets import DataSet, as_it_is, planted
from jobs.bench.data_targets import Row
from jobs.bench.kept import Kept
from jobs.bench.rows import say
from raysp.actions.lds_methods import Effects, Method, Surrogates, Trained, linear_scores
from raysp.explorers.fitting import fit_singles
from raysp.lenses import build_game
from raysp.masks import Masks
from raysp.models.influence import by_component
from raysp.sampling.draws import uniform_masks
from raysp.spectral.sets import Floats
from raysp.validation.data_scores import Correlation, held_out_subsets, lds

#: Trainings written at a time, which bounds what an interrupted run can lose.
BLOCK = 16
#: First numbers of the seeds of subsets to fit and to score on.
FITTED, SCORED = 1, 2
#: Methods that learn from retrainings, and those that use gradients.
RETRAINING, GRADIENTS, PEERS = ("proxyspex", "singles"), ("influence", "tracin", "gradient_dot"), ("traker", "dattri")
METHODS = (*RETRAINING, *GRADIENTS, *PEERS)


@dataclass(frozen=True)
class Protocol:
    """The protocol: budgets of the methods, subsets to score on and their seeds, budgets of the screening rows, and trainings that peers average over."""

    budgets: tuple[int, ...] = (100, 300, 600)
    heldout: int = 100
    seeds: int = 3
    ladder: tuple[int, ...] = (16, 32, 64, 100, 150, 200, 300, 450, 600)
    averaged: int = 3


FULL = Protocol()
QUICK = Protocol(budgets=(60, 150), heldout=40, seeds=2, ladder=(16, 32, 60, 100, 150), averaged=1)


def kept(game: Any, seed: int | None) -> Kept:
    """Outputs of a data game by mask, `(m, queries)`, kept in files: for one training seed, or as the game measures them (None)."""

    def outputs(masks: Masks) -> Floats:
        return game.measure(masks).outputs if seed is None else game.outputs_of(masks, seed)

    def watch(trainings: Kept, done: int, wanted: int) -> None:
        say(f"seed {seed}: {done} of {wanted} trainings, {trainings.seconds / trainings.paid:.2f} s each")

    return Kept(lambda: game.info.fingerprint + ("" if seed is None else f"-{seed}"), outputs, BLOCK, watch=watch)


@dataclass
class Case:
    """A training set under a protocol: its game, and the trainings on it."""

    data: DataSet
    protocol: Protocol

    @cached_property
    def game(self) -> Any:
        """The lens's game, its model loaded."""
        return build_game(self.data.lens)

    @cached_property
    def sample(self) -> tuple[Masks, Floats]:
        """The subsets to learn from and their outputs, as many as the largest budget."""
        most = max(self.protocol.budgets)
        masks = uniform_masks(self.game.n, most, np.random.default_rng(FITTED))
        return masks, self._kept(None)(masks)

    @cached_property
    def truth(self) -> Trained:
        """The subsets to score on with their outputs, from training seeds that no method has seen."""
        n = self.game.n
        masks = held_out_subsets(n, n // 2, self.protocol.heldout, np.random.default_rng(SCORED), self.sample[0])
        first = self.data.lens.training_seed + 1
        return Trained(masks, np.stack([self._kept(first + seed)(masks) for seed in range(self.protocol.seeds)]))

    @cached_property
    def influences(self) -> dict[str, Floats]:
        """Predicted effects by method of gradients, float64 `(queries, n)`, computed when first asked for."""
        return {}

    def effects(self, method: str) -> Floats:
        """Effects of removing components by a method of gradients or a peer, float64 `(queries, n)`."""
        if method not in self.influences:
            self.influences[method] = self.game.gradient_report().effects[method] if method in GRADIENTS else self._peer(method)
        return self.influences[method]

    def _kept(self, seed: int | None) -> Kept:
        if seed not in self._seeds:
            self._seeds[seed] = kept(self.game, seed)
        return self._seeds[seed]

    @cached_property
    def _seeds(self) -> dict[int | None, Kept]:
        return {}

    def trained(self) -> tuple[int, float]:
        """Trainings that this run paid for, and their seconds."""
        return sum(one.paid for one in self._seeds.values()), sum(one.seconds for one in self._seeds.values())

    def _peer(self, method: str) -> Floats:
        from jobs.bench.data_peers import PEERS as CALLS
        from jobs.bench.data_peers import Checkpoints

        game = self.game
        everything = np.ones((1, game.n), dtype=np.bool_)
        first = self.data.lens.training_seed
        with tempfile.TemporaryDirectory() as name:
            folders = [Path(name) / str(number) for number in range(self.protocol.averaged)]
            for number, folder in enumerate(folders):
                game.adapters(everything, first + number).save(folder, 0, self.data.lens.model)
            effects = CALLS[method](Checkpoints(game.model.loaded.model, folders, game.trainer.texts, game.trainer.evaluated))
        return by_component(effects, game.groups.of, game.n)


# ---- rows


def fitted(case: Case, method: str, budget: int) -> Method:
    """A method fitted to the first retrainings, up to a budget."""
    sample, answers = case.sample
    masks, outputs = sample[:budget], answers[:budget]
    if method == "singles":
        return Surrogates(method, [fit_singles(masks, column) for column in outputs.T])

    explorer = raysp.ProxySPEX().start(masks.shape[1])
    if method == "proxyspex":
        explorer = explorer.with_gradients(case.game.gradient_report())
    explorer.tell(masks, outputs)
    return Surrogates(method, [found.surrogate for found in explorer.results_by_query()])


def scored(case: Case, named: Row, compute: Callable[[], Method]) -> Row:
    """A method's row: LDS with its interval and by query, seconds of the fit; or the reason why there is none."""
    try:
        began = time.perf_counter()
        method = compute()
        seconds = time.perf_counter() - began
        found = lds(method.predict(case.truth.masks), case.truth.mean(case.truth.masks))
    except ImportError as error:
        return named | {"row": "missing", "why": f"{error}; the extra `bench` installs it"}
    except Exception as error:  # noqa: BLE001  one method's failure is a row, not the end of the others
        return named | {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return named | figures(found) | {"seconds": round(seconds, 2)}


def figures(found: Correlation) -> Row:
    """A score as columns."""
    shown = {"lds": found.mean.value, "lo": found.mean.lo, "hi": found.mean.hi}
    return {name: round(value, 4) for name, value in shown.items()} | {
        "by_query": [None if np.isnan(value) else round(value, 4) for value in found.by_query.tolist()]
    }


def rows(protocol: Protocol, sets: Sequence[DataSet], methods: Sequence[str] = METHODS) -> Iterator[Row]:
    """All rows: `lds` of every method at its budgets, `ceiling` and `floor`, `screening` along the ladder, `cost` of each training set."""
    for data in sets:
        case = Case(data, protocol)
        named: Row = {"row": "lds", "data": data.name, "planted": data.planted}
        for method in methods:
            for budget in protocol.budgets if method in RETRAINING else (protocol.averaged,) if method in PEERS else (1,):
                yield scored(case, named | {"method": method, "budget": budget}, _computing(case, method, budget))
        yield from bounds(case)
        for method in ("unaided", "proxyspex") if "proxyspex" in methods else ():
            for budget in protocol.ladder:
                yield scored(case, named | {"row": "screening", "method": method, "budget": budget}, _computing(case, method, budget))
        trained, seconds = case.trained()
        yield {"row": "cost", "data": data.name, "n": case.game.n, "queries": len(case.game.info.queries), "trained": trained, "seconds": round(seconds, 1)}


def _computing(case: Case, method: str, budget: int) -> Callable[[], Method]:
    if method in (*GRADIENTS, *PEERS):
        return lambda: Effects(method, case.effects(method).T)
    return lambda: fitted(case, method, budget)


def bounds(case: Case) -> Iterator[Row]:
    """The ceiling (trainings against other trainings) and the floor (chance)."""
    largest = fitted(case, "singles", max(case.protocol.budgets))
    for score in linear_scores([largest], case.truth.masks, case.truth):
        if score.query is None and score.metric != "lds":
            kind = "floor" if score.metric == "lds_floor" else "ceiling"
            shown = {"lds": score.value, "lo": score.lo, "hi": score.hi}
            yield {"row": kind, "data": case.data.name, "metric": score.metric, **{name: round(value, 4) for name, value in shown.items() if value is not None}}


def training_sets(quick: bool) -> list[DataSet]:
    """The sets of a run: the quick one has the planted set alone."""
    return [planted(quick)] if quick else [planted(quick), as_it_is(quick)]


def protocol(quick: bool, most: int | None) -> Protocol:
    """The full protocol or the quick one, with no budget above `most`."""
    found = QUICK if quick else FULL
    if most is None:
        return found
    return replace(found, budgets=tuple(b for b in found.budgets if b <= most), ladder=tuple(b for b in found.ladder if b <= most))
