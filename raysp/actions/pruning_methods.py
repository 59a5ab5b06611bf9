"""Which parts to leave out of a model so that it keeps doing what a run asked of it: by interactions, and by the simpler ways that these have to beat.

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

#: The surrogate's optimum and the LASSO's, each as it is and refined by exact swaps; the strongest exact singles; the best of random subsets.
Method = Literal["interactions", "refined", "singles", "singles_refined", "top_singles", "best_of_n", "intact"]
#: Shares kept that every pruning is compared at, as published.
SHARES = (0.5, 0.66, 0.83)
#: Swaps tried before the best of them is taken.
HANDFUL = 12
#: Seconds for the surrogate's optimum: what is proven in the next minute is about the surrogate alone, and exact swaps follow.
SOLVING = 3.0
#: Components on either side that swaps are looked for among.
PROMISING = 500
#: Resamples of the prompts for an interval.
RESAMPLES = 2000

Value = Callable[[Masks], Values]
"""The value of masks (bool, `(m, n)`), the mean over the run's prompts: float64 `(m,)`."""
ByPrompt = Callable[[Masks], Floats]
"""Each prompt's value of masks: float64 `(m, prompts)`."""


@dataclass(frozen=True)
class RunEvidence:
    """What a run knows of its components: the surrogate, the LASSO on singles, exact single effects `(n,)`, a layer each, and whether more of the value is better."""

    surrogate: FourierSurrogate
    singles: FourierSurrogate
    effects: Values
    layers: tuple[int, ...]
    more_is_better: bool
    seed: int = 0

    @property
    def n(self) -> int:
        """Components."""
        return self.surrogate.n


@dataclass(frozen=True)
class Pruned:
    """One way to keep a share of the components: the mask (bool `(n,)`), the mean over the run's prompts, and over held-out ones with a 95 % interval.

    `evaluations` are the exact ones on the run's prompts that it was chosen by.
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
    """How many components go, in all and, where each layer loses the same share, of each layer."""

    gone: int
    by_layer: Mapping[int, int] | None

    @classmethod
    def of(cls, keep: float, layers: Sequence[int], *, per_layer: bool) -> "PruningBudget":
        """The room that a share kept leaves; UserError for a share that keeps nothing or everything."""
        sizes = {layer: layers.count(layer) for layer in dict.fromkeys(layers)}
        limits = {layer: size - round(keep * size) for layer, size in sizes.items()} if per_layer else None
        gone = sum(limits.values()) if limits is not None else len(layers) - round(keep * len(layers))
        if per_layer and len(sizes) == len(layers):
            raise UserError("per_layer", per_layer, "takes a share of every layer, and each has one component", "leave it out")
        if not 0 < gone < len(layers):
            raise UserError("keep", keep, f"keeps {len(layers) - gone} of {len(layers)} components", "give a share between, such as 0.5")
        return cls(gone, limits)


def compare_methods(known: RunEvidence, train: Value, heldout: ByPrompt, keep: float, *, per_layer: bool, draws: int) -> list[Pruned]:
    """Every method at one share kept, valued on the run's own prompts (`train`) and on others (`heldout`).

    `draws` exact evaluations go to each method that searches on the run's own prompts: for random subsets, and for the swaps that refine a proposal.
    """
    room = PruningBudget.of(keep, known.layers, per_layer=per_layer)
    rng = np.random.default_rng([known.seed, room.gone])
    sign = 1.0 if known.more_is_better else -1.0
    optimum = _by_interactions(known, room)
    lasso, strongest = (_linear(sign * worth, known.layers, room) for worth in (_slopes(known.singles), known.effects))
    drawn = np.stack([_linear(rng.random(known.n), known.layers, room) for _ in range(draws)])
    search = _Search(train, sign, known.layers if per_layer else None, draws)
    # What a surrogate proposes is verified like any other claim, so all proposals that it could have made compete.
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
    """Search by exact evaluations on the run's prompts, `draws` at most; swaps stay within a layer where layers are given."""

    train: Value
    sign: float
    layers: tuple[int, ...] | None
    draws: int

    def values(self, masks: Masks) -> Values:
        """The mean over the prompts, more being better, float64 `(m,)`."""
        return self.sign * self.train(masks)

    def refined(self, surrogate: FourierSurrogate, proposed: Masks) -> tuple[Masks, int]:
        """The best of the proposed masks after swaps, those that the surrogate likes best tried a handful at a time; and the evaluations paid."""
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
        """The `count` most promising masks not yet tried that keep one component more and another less."""
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
        """The components whose flip alone would gain most: pairs of all of many would not fit memory."""
        alone = (flips.incidence.T @ flips.turned(~mask))[among]
        return np.sort(among[np.argsort(-alone, kind="stable")[:PROMISING]])


def _slopes(singles: FourierSurrogate) -> Values:
    """What each component adds when it is kept."""
    return singles.single_effects()


def _linear(worth: Values, layers: Sequence[int], room: PruningBudget) -> Masks:
    """Leave out those worth least."""
    mask = np.ones(len(worth), dtype=np.bool_)
    order = np.argsort(worth, kind="stable")
    if room.by_layer is None:
        mask[order[: room.gone]] = False
        return mask
    for layer, count in room.by_layer.items():
        mine = [i for i in order if layers[i] == layer]
        mask[mine[:count]] = False
    return mask
