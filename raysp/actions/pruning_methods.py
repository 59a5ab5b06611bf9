"""Choose parts to remove from a model while preserving the behaviour that a run measured: by interactions, and by simpler baselines.

Pure: subsets are chosen from what a run measured; functions map masks to values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.masks import Masks, Values
from raysp.spectral.flips import Flips
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.selection import best_subset
from raysp.spectral.sets import Floats

#: The optima of the surrogate and of the LASSO, unrefined and refined by exact swaps; the strongest exact singles; the best of random subsets.
Method = Literal["interactions", "refined", "singles", "singles_refined", "top_singles", "best_of_n", "intact"]
#: The published shares kept, at which every pruning is compared.
SHARES = (0.5, 0.66, 0.83)
#: Swaps tried before the best of them is accepted.
HANDFUL = 12
#: Time limit in seconds for the surrogate's optimum: a longer search would only optimise the surrogate further, and exact swaps follow.
SOLVING = 3.0
#: The number of kept and of removed components among which swaps are searched.
PROMISING = 500
#: Resamples of the prompts for an interval.
RESAMPLES = 2000

Value = Callable[[Masks], Values]
"""The value of masks (bool, `(m, n)`), the mean over the run's prompts: float64 `(m,)`."""
ByPrompt = Callable[[Masks], Floats]
"""Each prompt's value of masks: float64 `(m, prompts)`."""


@dataclass(frozen=True)
class RunEvidence:
    """A run's evidence: the surrogate, the LASSO on singles, exact single effects `(n,)`, each component's layer, and whether a higher value is better."""

    surrogate: FourierSurrogate
    singles: FourierSurrogate
    effects: Values
    layers: tuple[int, ...]
    more_is_better: bool
    seed: int = 0

    @property
    def n(self) -> int:
        """The number of components."""
        return self.surrogate.n


@dataclass(frozen=True)
class Pruned:
    """A method's choice at one share: the mask (bool `(n,)`), the mean over the run's prompts, and over held-out ones with a 95% interval.

    `evaluations` is the number of exact evaluations on the run's prompts that the choice used.
    """

    keep: float
    method: Method
    mask: Masks
    train: float
    heldout: float
    lo: float
    hi: float
    prompts: int
    evaluations: int


@dataclass(frozen=True)
class PruningBudget:
    """The number of components to remove: in total and, if every layer loses the same share, by layer."""

    gone: int
    by_layer: Mapping[int, int] | None

    @classmethod
    def of(cls, keep: float, layers: Sequence[int], *, per_layer: bool) -> "PruningBudget":
        """The budget at a share kept; UserError for a share that keeps nothing or everything."""
        sizes = {layer: layers.count(layer) for layer in dict.fromkeys(layers)}
        limits = {layer: size - round(keep * size) for layer, size in sizes.items()} if per_layer else None
        gone = sum(limits.values()) if limits is not None else len(layers) - round(keep * len(layers))
        if per_layer and len(sizes) == len(layers):
            raise UserError("per_layer", per_layer, "removes a share of every layer, but each layer has only one component", "omit it")
        if not 0 < gone < len(layers):
            raise UserError("keep", keep, f"keeps {len(layers) - gone} of {len(layers)} components", "give a share that keeps some of them, such as 0.5")
        return cls(gone, limits)


def compare_methods(known: RunEvidence, train: Value, heldout: ByPrompt, keep: float, *, per_layer: bool, draws: int) -> list[Pruned]:
    """Every method's choice at one share kept, evaluated on the run's prompts (`train`) and on held-out ones (`heldout`).

    Each method that searches on the run's prompts gets `draws` exact evaluations: for random subsets, or for the swaps that refine a proposal.
    """
    room = PruningBudget.of(keep, known.layers, per_layer=per_layer)
    rng = np.random.default_rng([known.seed, room.gone])
    sign = 1.0 if known.more_is_better else -1.0
    optimum = _by_interactions(known, room)
    lasso, strongest = (_linear(sign * worth, known.layers, room) for worth in (_slopes(known.singles), known.effects))
    drawn = np.stack([_linear(rng.random(known.n), known.layers, room) for _ in range(draws)])
    search = _Search(train, sign, known.layers if per_layer else None, draws)
    # Refinement starts from the best, by exact evaluation, of all proposals available to the method.
    chosen: dict[Method, tuple[Masks, int]] = {
        "interactions": (optimum, 0),
        "refined": search.refined(known.surrogate, np.stack([optimum, lasso, strongest])),
        "singles": (lasso, 0),
        "singles_refined": search.refined(known.singles, np.stack([lasso, strongest])),
        "top_singles": (strongest, 0),
        "best_of_n": (drawn[int(np.argmax(search.values(drawn)))], draws),
        "intact": (np.ones(known.n, dtype=np.bool_), 0),
    }
    masks = np.stack([mask for mask, _ in chosen.values()])
    seen, unseen = train(masks), heldout(masks)
    rows = np.random.default_rng(known.seed).integers(0, unseen.shape[1], (RESAMPLES, unseen.shape[1]))
    spread = np.quantile(unseen[:, rows].mean(axis=2), [0.025, 0.975], axis=1).T
    means = zip(seen.tolist(), unseen.mean(axis=1).tolist(), spread.tolist(), strict=True)
    return [
        Pruned(keep, method, mask, train=a, heldout=b, lo=lo, hi=hi, prompts=unseen.shape[1], evaluations=paid)
        for (method, (mask, paid)), (a, b, (lo, hi)) in zip(chosen.items(), means, strict=True)
    ]


def _by_interactions(known: RunEvidence, room: PruningBudget) -> Masks:
    groups: dict[str, Any] = {} if room.by_layer is None else {"groups": known.layers, "group_limits": room.by_layer}
    found = best_subset(known.surrogate, room.gone, mode="increase" if known.more_is_better else "decrease", time_limit=SOLVING, **groups)
    mask = np.ones(known.n, dtype=np.bool_)
    mask[list(found.components)] = False
    return mask


@dataclass(frozen=True)
class _Search:
    """Search with at most `draws` exact evaluations on the run's prompts; if layers are given, swaps stay within a layer."""

    train: Value
    sign: float
    layers: tuple[int, ...] | None
    draws: int

    def values(self, masks: Masks) -> Values:
        """The mean over the prompts, oriented so that higher is better, float64 `(m,)`."""
        return self.sign * self.train(masks)

    def refined(self, surrogate: FourierSurrogate, proposed: Masks) -> tuple[Masks, int]:
        """The best of the proposed masks after swaps, tried in batches in the surrogate's order of preference; and the number of evaluations used."""
        proposed = proposed[: self.draws]
        flips = Flips.of(surrogate, keep=False, sign=self.sign)
        values = self.values(proposed)
        best, value = proposed[int(np.argmax(values))], float(values.max())
        tried, paid = {mask.tobytes() for mask in proposed}, len(proposed)
        while paid < self.draws:
            some = self._swaps(flips, best, tried, min(HANDFUL, self.draws - paid))
            if not len(some):
                break
            tried |= {mask.tobytes() for mask in some}
            paid += len(some)
            values = self.values(some)
            if values.max() > value:
                best, value = some[int(np.argmax(values))], float(values.max())
        return best, paid

    def _swaps(self, flips: Flips, mask: Masks, tried: set[bytes], count: int) -> Masks:
        """The `count` most promising masks not yet tried that swap a kept component for a removed one."""
        kept, gone = (self._promising(flips, mask, among) for among in (np.flatnonzero(mask), np.flatnonzero(~mask)))
        gains = flips.moves(~mask, np.concatenate([kept, gone]))[: len(kept), len(kept) : -1]
        if self.layers is not None:
            layer = np.array(self.layers)
            gains = np.where(layer[kept][:, None] == layer[gone], gains, -np.inf)
        found: list[Masks] = []
        for place in np.argsort(-gains, axis=None, kind="stable"):
            out, back = divmod(int(place), len(gone))
            if len(found) == count or gains[out, back] == -np.inf:
                break
            swapped = mask.copy()
            swapped[kept[out]], swapped[gone[back]] = False, True
            if swapped.tobytes() not in tried:
                found.append(swapped)
        return np.array(found, dtype=np.bool_).reshape(-1, len(mask))

    @staticmethod
    def _promising(flips: Flips, mask: Masks, among: NDArray[np.intp]) -> NDArray[np.intp]:
        """The components whose flip alone would gain most, as the pairs of all components may not fit into memory."""
        alone = (flips.incidence.T @ flips.turned(~mask))[among]
        return np.sort(among[np.argsort(-alone, kind="stable")[:PROMISING]])


def _slopes(singles: FourierSurrogate) -> Values:
    """The effect of keeping each component."""
    return singles.single_effects()


def _linear(worth: Values, layers: Sequence[int], room: PruningBudget) -> Masks:
    """Remove the components that are worth least."""
    mask = np.ones(len(worth), dtype=np.bool_)
    order = np.argsort(worth, kind="stable")
    if room.by_layer is None:
        mask[order[: room.gone]] = False
        return mask
    for layer, count in room.by_layer.items():
        mine = [i for i in order if layers[i] == layer]
        mask[mine[:count]] = False
    return mask
