"""Which parts to leave out of a model so that it keeps doing what a run asked of it: by interactions, and by the simpler ways that these have to beat.

Pure: subsets are chosen from what a run measured; a function is told masks and gives each prompt's value.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from raysp.errors import UserError
from raysp.game import Masks, Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.selection import best_subset
from raysp.spectral.sets import Floats

Method = Literal["interactions", "singles", "top_singles", "best_of_n", "intact"]
#: Shares kept that every pruning is compared at, as published.
SHARES = (0.5, 0.66, 0.83)
#: Values of which less is better.
COSTS = ("loss", "kl")
#: Swaps tried before the best of them is taken.
HANDFUL = 12
#: Resamples of the prompts for an interval.
RESAMPLES = 2000

ByPrompt = Callable[[Masks], Floats]


@dataclass(frozen=True)
class Known:
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
    """One way to keep a share of the components: the mask (bool `(n,)`), the mean over the run's prompts, and over held-out ones with a 95 % interval."""

    keep: float
    method: Method
    mask: Masks
    train: float
    heldout: float
    lo: float
    hi: float
    prompts: int


@dataclass(frozen=True)
class Room:
    """How many components go, in all and, where each layer loses the same share, of each layer."""

    gone: int
    by_layer: Mapping[int, int] | None

    @classmethod
    def of(cls, keep: float, layers: Sequence[int], *, per_layer: bool) -> "Room":
        """The room that a share kept leaves; UserError for a share that keeps nothing or everything."""
        sizes = {layer: layers.count(layer) for layer in dict.fromkeys(layers)}
        limits = {layer: size - round(keep * size) for layer, size in sizes.items()} if per_layer else None
        gone = sum(limits.values()) if limits is not None else len(layers) - round(keep * len(layers))
        if not 0 < gone < len(layers):
            raise UserError("keep", keep, f"keeps {len(layers) - gone} of {len(layers)} components", "give a share between, such as 0.66")
        return cls(gone, limits)


def compare(known: Known, train: ByPrompt, heldout: ByPrompt, keep: float, *, per_layer: bool, draws: int) -> list[Pruned]:
    """Every method at one share kept. `train` and `heldout` give each prompt's value (float64 `(m, prompts)`) of masks.

    `draws` random subsets compete, and as many exact evaluations verify and better what the surrogate proposes.
    """
    room = Room.of(keep, known.layers, per_layer=per_layer)
    rng = np.random.default_rng([known.seed, room.gone])
    sign = 1.0 if known.more_is_better else -1.0
    chosen: dict[Method, Masks] = {
        "singles": _linear(sign * _slopes(known.singles), known.layers, room),
        "top_singles": _linear(sign * known.effects, known.layers, room),
        "best_of_n": _best(train, np.stack([_linear(rng.random(known.n), known.layers, room) for _ in range(draws)]), sign),
        "intact": np.ones(known.n, dtype=np.bool_),
    }
    # What the surrogate proposes is verified like any other claim: where single effects do better on the run's own prompts, it was wrong.
    proposed = np.stack([_by_interactions(known, room), chosen["singles"], chosen["top_singles"]])
    chosen = {"interactions": _bettered(known, train, proposed, draws, per_layer=per_layer), **chosen}
    masks = np.stack(list(chosen.values()))
    seen, unseen = train(masks), heldout(masks)
    rows = np.random.default_rng(known.seed).integers(0, unseen.shape[1], (RESAMPLES, unseen.shape[1]))
    spread = np.quantile(unseen[:, rows].mean(axis=2), [0.025, 0.975], axis=1).T
    means = zip(seen.mean(axis=1).tolist(), unseen.mean(axis=1).tolist(), spread.tolist(), strict=True)
    return [
        Pruned(keep, method, mask, train=a, heldout=b, lo=lo, hi=hi, prompts=unseen.shape[1])
        for (method, mask), (a, b, (lo, hi)) in zip(chosen.items(), means, strict=True)
    ]


def _by_interactions(known: Known, room: Room) -> Masks:
    groups: dict[str, Any] = {} if room.by_layer is None else {"groups": known.layers, "group_limits": room.by_layer}
    found = best_subset(known.surrogate, room.gone, mode="increase" if known.more_is_better else "decrease", **groups)
    mask = np.ones(known.n, dtype=np.bool_)
    mask[list(found.components)] = False
    return mask


def _bettered(known: Known, train: ByPrompt, proposed: Masks, draws: int, *, per_layer: bool) -> Masks:
    """The best of the proposed masks on the run's prompts, bettered by swaps: those that the surrogate likes best are tried, a handful at a time."""
    sign = 1.0 if known.more_is_better else -1.0
    values = sign * train(proposed).mean(axis=1)
    best, value = proposed[int(np.argmax(values))], float(values.max())
    tried, left = {mask.tobytes() for mask in proposed}, draws - len(proposed)
    while left > 0:
        swaps = [mask for mask in _swaps(best, known.layers, per_layer=per_layer) if mask.tobytes() not in tried]
        if not swaps:
            break
        guessed = sign * known.surrogate.predict(np.stack(swaps))
        some = np.stack([swaps[i] for i in np.argsort(-guessed, kind="stable")[: min(HANDFUL, left)]])
        tried |= {mask.tobytes() for mask in some}
        left -= len(some)
        values = sign * train(some).mean(axis=1)
        if values.max() > value:
            best, value = some[int(np.argmax(values))], float(values.max())
    return best


def _swaps(mask: Masks, layers: Sequence[int], *, per_layer: bool) -> list[Masks]:
    """All masks that keep one component more and one less."""
    found: list[Masks] = []
    for out in np.flatnonzero(mask).tolist():
        for back in np.flatnonzero(~mask).tolist():
            if not per_layer or layers[out] == layers[back]:
                swapped = mask.copy()
                swapped[out], swapped[back] = False, True
                found.append(swapped)
    return found


def _slopes(singles: FourierSurrogate) -> Values:
    """What each component adds when it is kept."""
    n = singles.n
    values = singles.predict(np.concatenate([np.ones((1, n), dtype=np.bool_), ~np.eye(n, dtype=np.bool_)]))
    return values[0] - values[1:]


def _linear(worth: Values, layers: Sequence[int], room: Room) -> Masks:
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


def _best(train: ByPrompt, masks: Masks, sign: float) -> Masks:
    return masks[int(np.argmax(sign * train(masks).mean(axis=1)))]
