"""Effects of removing training examples, predicted from gradients without retraining: linear algebra on matrices of gradients, independent of models.

The inputs are the gradients of each training example's share of the training loss, float32 `(examples, parameters)`, and the gradients of the queries' outputs,
`(queries, parameters)`, both at the adapter trained on all examples. The outputs are predicted effects `v(all) - v(all without i)`, float64
`(queries, examples)`: positive for an example whose removal lowers the output. To first order, removing example i moves the optimum of the summed loss by `+H⁻¹ g_i`,
so the effect is `-q H⁻¹ g_i` (Koh and Liang 2017). The methods differ in their approximation of `H⁻¹`.

- `influence`: the damped empirical Fisher matrix `GᵀG + λ` (as in Grosse et al. 2023 and LoGra, Choe et al. 2024), in the space of examples if there are fewer of
  them than parameters (`(GᵀG + λ)⁻¹ Gᵀ = Gᵀ (GGᵀ + λ)⁻¹`, exact), and after a random projection if neither fits into memory (TRAK, Park et al. 2023).
- `tracin`: learning rate times the identity, summed over checkpoints along the training (Pruthi et al. 2020).
- `gradient_dot`: the identity at the end of training.

All of them assume gradient descent, and `influence` assumes convergence. AdamW normalises every coordinate by the size of its past gradients, and a few epochs do not
converge: signs and ranks carry over, which is all that screening and the linear datamodeling score use, but the scale does not. If the scale matters, it has to be
fitted to retrainings, as ProxySPEX does with the proxy `gradient`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysp.models.inputs import Floats, Integers

Singles = NDArray[np.float32]
Reals = Singles | Floats

#: Most entries of a gradient matrix that is held unprojected (1 GiB); a larger one is projected as it arrives.
ROOM = 1 << 28
#: Most columns after a projection.
WIDEST = 4096
#: Columns multiplied in float64 at a time, and columns whose random signs are drawn at a time.
COLUMNS = 2048
#: Damping as a share of the mean eigenvalue: the best of 0.01 to 100, by a small margin, in LDS on the planted facts of `jobs/bench/data_sets.py`. Early stopping
#: acts like strong damping, hence more than the tenth that is usual at convergence.
DAMPING = 1.0


@dataclass(frozen=True, slots=True)
class Gathered:
    """Gradients in memory: of the examples, float32 `(examples, columns)`, of the queries, float32 `(queries, columns)`, and the end of each block of columns.

    Blocks are groups of parameters, such as layers, between which curvature is assumed to be zero. `projected`: columns are random projections of parameters.
    """

    examples: Singles
    queries: Singles
    blocks: tuple[int, ...]
    projected: bool = False

    def parts(self) -> list[tuple[Singles, Singles]]:
        """The examples' and queries' columns of each block."""
        starts = (0, *self.blocks[:-1])
        return [(self.examples[:, start:stop], self.queries[:, start:stop]) for start, stop in zip(starts, self.blocks, strict=True)]


@dataclass(frozen=True, slots=True)
class Projection:
    """A matrix of random signs over sqrt(width), `(size, width)`, never held as a whole; it preserves inner products in expectation, with variance about 1 / width.

    It is a function of its three numbers only, so rows projected in parts equal rows projected together.
    """

    size: int
    width: int
    seed: int

    def __call__(self, rows: Singles) -> Singles:
        """Rows float32 `(any, size)` as `(any, width)`."""
        found = np.zeros((len(rows), self.width), np.float32)
        for start in range(0, self.size, COLUMNS):
            found += rows[:, start : start + COLUMNS] @ self._signs(start)
        return found / np.float32(self.width**0.5)

    def _signs(self, start: int) -> Singles:
        shape = (min(COLUMNS, self.size - start), self.width)
        count = shape[0] * shape[1]
        drawn = np.frombuffer(np.random.default_rng([self.seed, start]).bytes(-(-count // 8)), np.uint8)
        return (np.unpackbits(drawn, count=count).reshape(shape) * np.float32(2)) - np.float32(1)


def gather(chunks: Iterable[Singles], examples: int, queries: Singles, *, sizes: Sequence[int] | None = None, room: int = ROOM, seed: int = 0) -> Gathered:
    """Collect gradients of the examples, which arrive some rows at a time, and of the queries; projected if `examples x parameters` exceeds `room` entries.

    `sizes` are the numbers of parameters of consecutive blocks; None for one block. Only one chunk is held besides the result, which has at most `room` entries.
    ValueError if shapes do not match.
    """
    parameters = queries.shape[1]
    sizes = list(sizes) if sizes is not None else [parameters]
    if sum(sizes) != parameters:
        raise ValueError(f"blocks of {sum(sizes)} parameters for gradients of {parameters}")
    whole = examples * parameters <= room
    width = parameters if whole else max(min(WIDEST, room // examples), len(sizes))
    projections = [] if whole else _projections(sizes, width, seed)
    ends = np.cumsum(sizes if whole else [projection.width for projection in projections])
    held = np.empty((examples, int(ends[-1])), np.float32)
    done = 0
    for chunk in chunks:
        if chunk.shape[1] != parameters or done + len(chunk) > examples:
            raise ValueError(f"a chunk of shape {chunk.shape} behind {done} of {examples} examples; expected {parameters} columns")
        held[done : done + len(chunk)] = chunk if whole else _projected(chunk, projections)
        done += len(chunk)
    if done != examples:
        raise ValueError(f"gradients of {done} examples; expected {examples}")
    of_queries = np.asarray(queries, np.float32) if whole else _projected(queries, projections)
    return Gathered(held, of_queries, tuple(ends.tolist()), not whole)


def influence(gradients: Gathered, damping: float = DAMPING, curvature: Gathered | None = None) -> Floats:
    """Predicted effects `-Q (CᵀC + λ)⁻¹ Gᵀ`, float64 `(queries, examples)`, block by block, with C = G (the empirical Fisher matrix) unless `curvature` gives C.

    λ is `damping` times the mean of a block's eigenvalues that can differ from zero, trace / min(examples, columns). For squared losses, with C the gradients of the
    predictions, the Gauss-Newton matrix is the Hessian. A block whose gradients are all zero contributes nothing.
    """
    total = np.zeros((len(gradients.queries), len(gradients.examples)))
    others = gradients.parts() if curvature is None else curvature.parts()
    for (examples, queries), (rows, _) in zip(gradients.parts(), others, strict=True):
        total -= _solved(queries, rows, examples, damping)
    return total


def pair_deviations(gradients: Gathered, weights: Floats, of: Integers, n: int, damping: float = DAMPING) -> tuple[Floats, Floats]:
    """Effects on the weighted sum of the queries' outputs, float64 `(n,)`, and deviations of pairs from additivity, float64 `(n, n)`, if curvature goes with the examples.

    `weights` is float64 `(queries,)`; `of`, int64 `(examples,)`, gives each example's component. Removing a set S removes its rows from the Fisher matrix, too:
    `-q (H - G_SᵀG_S)⁻¹ g_S`. To first order in the removed rows, an effect e_i gains `sum over j in S of e_j a_ij` with `a = G H⁻¹ Gᵀ`, so two examples deviate from
    additivity by `(e_i + e_j) a_ij`: positive (redundant) if they are alike and help. Deviations are Δ(ij) - Δ(i) - Δ(j), symmetric, with a zero diagonal.
    """
    singles, pairs = np.zeros(n), np.zeros((n, n))
    for examples, queries in gradients.parts():
        effects = -_solved((weights @ queries.astype(np.float64))[None], examples, examples, damping)[0]
        if len(examples) < examples.shape[1]:
            alike = by_component(_solved(examples, examples, examples, damping), of, n)
        else:  # for many examples, a matrix over all pairs must not be formed
            alike = _solved(examples, examples, by_component(examples.T, of, n).T, damping)
        # Component I with J: the effects of I's members times their similarity to J's, which is how much more they matter once J is removed.
        gained = by_component((effects[:, None] * alike).T, of, n).T
        singles += by_component(effects[None], of, n)[0] + np.diag(gained)
        pairs += gained + gained.T
    np.fill_diagonal(pairs, 0.0)
    return singles, pairs


def gradient_dot(chunks: Iterable[Singles], queries: Singles, preconditioner: Floats | None = None) -> Floats:
    """Predicted effects `-Q Gᵀ`, float64 `(queries, examples)`, from gradients that arrive some rows at a time.

    With a `preconditioner`, float `(parameters,)`, such as an optimiser's: `-Q diag(preconditioner) Gᵀ`.
    """
    of_queries = queries.astype(np.float64)
    if preconditioner is not None:
        of_queries *= preconditioner
    parts = [-_product(of_queries, chunk) for chunk in chunks]
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(queries), 0))


def tracin(checkpoints: Iterable[tuple[float, Iterable[Singles], Singles]]) -> Floats:
    """The weighted sum of `gradient_dot` over checkpoints `(weight, gradients of the examples in chunks, gradients of the queries)`, float64 `(queries, examples)`.

    A checkpoint's weight is the learning rate times the number of times that each example was used near it, such as the mean learning rate of an epoch.
    ValueError without checkpoints.
    """
    total: Floats | None = None
    for weight, chunks, queries in checkpoints:
        found = weight * gradient_dot(chunks, queries)
        total = found if total is None else total + found
    if total is None:
        raise ValueError("no checkpoints to trace influence along")
    return total


def by_component(effects: Reals, of: Integers, n: int) -> Floats:
    """Effects of examples, `(queries, examples)`, summed over the members of each component (`of`, int64 `(examples,)`), float64 `(queries, n)`.

    To first order, that is the effect of removing all members.
    """
    found = np.zeros((n, len(effects)))
    np.add.at(found, of, effects.T.astype(np.float64))
    return found.T.copy()


def _solved(queries: Reals, rows: Singles, examples: Reals, damping: float) -> Floats:
    """`Q (CᵀC + λ)⁻¹ Gᵀ` for C = rows and G = examples, float64; zero if C is."""
    from scipy.linalg import cho_factor, cho_solve

    fewer = len(rows) < rows.shape[1]
    square = _product(rows, rows) if fewer else _product(rows.T, rows.T)
    strength = damping * float(np.trace(square)) / len(square)
    if strength <= 0:
        return np.zeros((len(queries), len(examples)))
    factor = cho_factor(square + strength * np.eye(len(square)), lower=True)
    if not fewer:
        return np.asarray(_product(queries, cho_solve(factor, examples.T.astype(np.float64)).T))
    # Woodbury: (CᵀC + λ)⁻¹ = (1 - Cᵀ (CCᵀ + λ)⁻¹ C) / λ; with G = C it comes to Q Cᵀ (CCᵀ + λ)⁻¹, without the difference.
    reached = cho_solve(factor, _product(rows, queries)).T
    if examples is rows:
        return np.asarray(reached)
    return np.asarray((_product(queries, examples) - reached @ _product(rows, examples)) / strength)


def _product(left: Reals, right: Reals) -> Floats:
    """`left rightᵀ` in float64, some columns at a time, to avoid a float64 copy of a large matrix."""
    found = np.zeros((len(left), len(right)))
    for start in range(0, left.shape[1], COLUMNS):
        some = slice(start, start + COLUMNS)
        found += left[:, some].astype(np.float64) @ right[:, some].astype(np.float64).T
    return found


def _projections(sizes: Sequence[int], width: int, seed: int) -> list[Projection]:
    """One projection for each block, of a width proportional to its size."""
    total = sum(sizes)
    return [Projection(size, max(min(size, width * size // total), 1), seed * len(sizes) + number) for number, size in enumerate(sizes)]


def _projected(rows: Singles, projections: Sequence[Projection]) -> Singles:
    ends = np.cumsum([projection.size for projection in projections])
    return np.concatenate([projection(rows[:, end - projection.size : end]) for projection, end in zip(projections, ends, strict=True)], axis=1)
