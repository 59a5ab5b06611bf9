"""Games whose answer is known, for the numerics' tests."""

from collections.abc import Callable, Mapping

import numpy as np

from raysp.explorers import Explorer, Findings
from raysp.masks import Masks, Values
from raysp.spectral.fourier import FourierSurrogate

Function = Callable[[Masks], Values]


def and_or(masks):
    """2 (x0 and x1) + 3 (x2 or x3) + x4 + x5 / 2."""
    x = masks.astype(float)
    return 2 * x[:, 0] * x[:, 1] + 3 * np.maximum(x[:, 2], x[:, 3]) + x[:, 4] + 0.5 * x[:, 5]


def additive(masks):
    return masks[:, :5] @ np.arange(1.0, 6.0)


def parity(masks):
    """A peak without hierarchy: one parity of seven components."""
    return (1.0 - 2.0 * masks[:, :7]).prod(axis=1)


def hidden_pairs(masks):
    """Strong components that act alone, and pairs that cover for each other so well that no single ablation shows them."""
    x = masks.astype(float)
    return x[:, :6] @ np.arange(1.0, 7.0) + sum(3 * np.maximum(x[:, i], x[:, i + 1]) for i in range(10, 30, 2))


def constant(masks):
    return np.full(len(masks), 3.0)


def planted(n: int, terms: int, seed: int, max_order: int = 4) -> FourierSurrogate:
    """A sparse Fourier sum in which every set extends another one."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], float] = {(int(i),): float(rng.normal()) for i in rng.choice(n, min(n, 20), replace=False)}
    while len(found) < terms:
        members = list(found)[rng.integers(len(found))]
        added = int(rng.integers(n))
        if added not in members and len(members) < max_order:
            found[tuple(sorted((*members, added)))] = float(rng.normal())
    return FourierSurrogate.from_dict(n, found)


def sparse(n: int, terms: int, seed: int, max_order: int = 5, min_order: int = 1) -> FourierSurrogate:
    """A sparse Fourier sum of sets without any hierarchy, coefficients of size 1/2 to 3/2."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], float] = {}
    while len(found) < min(terms, n):
        members = rng.choice(n, rng.integers(min_order, min(max_order, n) + 1), replace=False)
        found[tuple(sorted(members.tolist()))] = float(rng.uniform(0.5, 1.5) * rng.choice([-1, 1]))
    return FourierSurrogate.from_dict(n, found)


def explore(explorer: Explorer, function: Function, n: int, seed: int = 0) -> Explorer:
    """Ask and tell to the end."""
    started = explorer.start(n, seed)
    while not started.done():
        masks = started.ask()
        started.tell(masks, function(masks))
    return started


def found(findings: Findings, least: float = 0.1) -> Mapping[tuple[int, ...], float]:
    """The interactions stronger than `least`."""
    rows = findings.table.to_pylist()
    return {tuple(row["components"]): row["value"] for row in rows if abs(row["value"]) > least}


def exact_slopes(game, masks):
    """The derivatives of a Fourier sum at one half, as differences: it is linear in each component."""
    found = np.zeros(masks.shape)
    for i in range(masks.shape[1]):
        present, absent = masks.copy(), masks.copy()
        present[:, i], absent[:, i] = True, False
        found[:, i] = game.predict(present) - game.predict(absent)
    return found
