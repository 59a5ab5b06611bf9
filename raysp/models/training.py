"""Training many adapters at once, each on a subset of the same texts: the fast path of the data lens.

An ordinary training loop runs the whole model over padded batches and computes logits at every position. Here the blocks below the first adapted one are run
once (`FrozenPrefix`), the adapters of a stack are rows of one batch, the texts of a batch share their common beginnings, and the head is applied to targets only.
`reference.py` is the ordinary loop; in float32 both give the same losses and values. Adapters, gradients, the optimiser's state, log-softmax and losses are
float32 whatever the dtype of the frozen weights.

A trained adapter is a function of recipe, subset and seed: the adapters trained beside it change only the last bits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from raysp.errors import EvaluationError, UserError
from raysp.models.architecture import Architecture, read_architecture
from raysp.models.frozen_prefix import AdapterRows, FrozenPrefix, Text, targets
from raysp.models.inputs import Floats, Integers
from raysp.models.lora import Recipe, Site, Stack, sites
from raysp.models.memory import is_out_of_memory, release
from raysp.models.resident import REFUSALS, TOLERANCE
from raysp.models.target_loss import TargetLoss

#: torch's defaults for AdamW.
BETAS, EPSILON = (0.9, 0.999), 1e-8
#: Nodes that go through the adapted blocks at once, in the prefix trees of all rows together, padding included.
NODES = {"cpu": 1024, "cuda": 32768, "mps": 8192}
#: Fewest nodes to which that is halved when memory runs out.
FEWEST_NODES = 64
#: Texts on which the fast path is compared with the model's own forward pass.
CHECKED = 6
#: Most elements of the texts' gradients at the common start that are kept.
FIRST_HELD = 1 << 27
#: Weights larger than this mean that the training diverged.
GROWN = 1e6
#: Adapters trained side by side, or as many as fit with their gradients and moments into `STATE` bytes.
STACKED = {"cpu": 8, "cuda": 64, "mps": 16}
STATE = 1 << 32

Numbers = Sequence[Integers]
T = TypeVar("T")
Watch = Callable[[Stack, list[list[float]], list[float]], None]
"""Called after every step with the adapters, the losses of each so far, and the learning rates of the step."""


class DivergenceError(EvaluationError):
    """A diverged training: the row of the stack, the step (from 1), and the symptom, such as "its loss was nan"."""

    def __init__(self, row: int, step: int, seen: str) -> None:
        super().__init__(f"training diverged at step {step}: {seen}")
        self.row, self.step, self.seen = row, step, seen

    def __reduce__(self) -> tuple[type["DivergenceError"], tuple[int, int, str]]:
        """How it is pickled: exceptions with arguments of their own are not by default."""
        return type(self), (self.row, self.step, self.seen)

    @classmethod
    def of(cls, row: int, step: int, loss: float, largest: float) -> "DivergenceError | None":
        """The error of a step with this loss and largest weight; None if both are normal.

        A loss can stay finite when weights do not: norms hide overflow, and some kernels drop NaN.
        """
        if not math.isfinite(loss):
            return cls(row, step, f"its loss was {loss}")
        return None if largest <= GROWN else cls(row, step, f"its weights grew to {largest:.1g}")


def batches(subset: Integers, recipe: Recipe, seed: int, examples: int) -> list[Integers]:
    """The batches of all epochs, in order. The sort key of an example depends on seed, epoch and its own number, not on the rest of the subset."""
    found: list[Integers] = []
    for epoch in range(recipe.epochs if len(subset) else 0):
        keys = np.random.default_rng([seed, epoch]).random(examples)
        ordered = subset[np.argsort(keys[subset], kind="stable")]
        found += [ordered[start : start + recipe.batch_size] for start in range(0, len(ordered), recipe.batch_size)]
    return found


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate at a step (from 0) of `steps`, as in the schedules of transformers."""
    warm = math.ceil(recipe.warmup * steps)
    if step < warm:
        return recipe.learning_rate * step / max(1, warm)
    left = (steps - step) / max(1, steps - warm)
    factor = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left)))}[recipe.schedule]
    return recipe.learning_rate * factor


@dataclass(slots=True, weakref_slot=True, eq=False)
class Trainer:
    """A model, a recipe, the training texts, and the texts (`evaluated`) that trained adapters are evaluated on. `tokens` counts the tokens sent through blocks."""

    model: Any
    device: torch.device
    recipe: Recipe
    texts: Sequence[Text]
    evaluated: Sequence[Text]
    name: str = "the model"
    architecture: Architecture = field(init=False, repr=False)
    sites: tuple[Site, ...] = field(init=False, repr=False)
    frozen_prefix: FrozenPrefix = field(init=False, repr=False)
    head: TargetLoss = field(init=False, repr=False)
    nodes: int = field(init=False)
    tokens: int = field(init=False, default=0)
    _firsts: "dict[int, _FirstStep]" = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = NODES.get(self.device.type, 1024)
        self.architecture = read_architecture(self.model, self.name)
        self.sites = sites(self.model, self.architecture, self.recipe)
        self.head = TargetLoss(self.model, self.architecture, self.device)
        self.frozen_prefix = FrozenPrefix(self.model, self.architecture, self.device, min(self.recipe.layers), (*self.texts, *self.evaluated))
        self.tokens += self.frozen_prefix.tokens

    @property
    def way(self) -> str:
        """How it trains, for notes."""
        return "adapters trained side by side"

    @classmethod
    def fitting(cls, *what: Any, **named: Any) -> "tuple[Trainer | None, str]":
        """A trainer and "", or None and the reason if the model scores texts in a prefix tree differently from texts on their own.

        That is so for models whose attention does not use the given mask as it is, such as a window shorter than the texts or scores by token distance.
        """
        try:
            trainer = cls(*what, **named)
            mismatch = trainer.mismatch()
        except UserError:
            raise
        except REFUSALS as error:
            if is_out_of_memory(error):
                raise
            return None, f"this architecture refuses another way ({type(error).__name__})"
        return (trainer, "") if mismatch is None else (None, f"texts in one tree are {mismatch:.2g} from the model's own answers")

    @property
    def stacked(self) -> int:
        """Number of adapters to train at once."""
        return min(STACKED.get(self.device.type, 8), self._held)

    @property
    def _held(self) -> int:
        """Number of adapters, at least one, that fit into memory with their gradients and AdamW's two moments."""
        size = self.recipe.rank * sum(site.reads + site.writes for site in self.sites)
        return max(STATE // (4 * torch.float32.itemsize * max(size, 1)), 1)

    def mismatch(self) -> float | None:
        """Largest difference per token, on some of the texts, between the log-probabilities of untrained adapters and of the model; None if within rounding."""
        lengths = [len(text.ids) for text in (*self.texts, *self.evaluated)]
        order = np.argsort(lengths, kind="stable")
        chosen = np.unique(order[np.linspace(0, len(order) - 1, min(CHECKED, len(order))).astype(int)])
        with torch.no_grad():
            found, _ = self._logprobs(self.start([0]), [0], [chosen], None)
            expected = torch.cat([self._own(self.frozen_prefix.texts[number]) for number in chosen])
        mismatch = float((found.cpu() - expected.cpu()).abs().max())
        return None if mismatch <= TOLERANCE[self.model.dtype] * (1 + float(expected.abs().max())) else mismatch

    def _own(self, text: Text) -> Tensor:
        """The log-probabilities of a text's targets in an ordinary forward pass of the model."""
        ids = torch.from_numpy(text.ids).to(self.device)
        logits = self.model(input_ids=ids[None], use_cache=False).logits[0, text.first - 1 : -1]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1).gather(1, ids[text.first :, None])[:, 0]

    def start(self, seeds: Sequence[int]) -> Stack:
        """The untrained adapters, one for each seed."""
        return Stack.start(self.sites, self.recipe, seeds)

    def train(self, subsets: Numbers, seeds: Sequence[int], watch: Watch | None = None) -> Stack:
        """Train adapters side by side, each on the texts of one subset (their numbers, int64) with a seed of its own.

        `watch` is called after every step. DivergenceError for a loss that is not finite, and for weights larger than `GROWN`.
        """
        stack = self.start(seeds)
        plans = [batches(np.asarray(subset, np.int64), self.recipe, seed, len(self.texts)) for subset, seed in zip(subsets, seeds, strict=True)]
        optimiser = _AdamW(stack, self.recipe.weight_decay)
        losses: list[list[float]] = [[] for _ in plans]
        for step in range(max(map(len, plans), default=0)):
            active = [row for row, plan in enumerate(plans) if step < len(plan)]
            chosen = [plans[row][step] for row in active]
            first = self._first(seeds[0], len(seeds)) if step == 0 and len(set(seeds)) == 1 else None
            found = self._fitting(partial(self._pass, stack, active, chosen)) if first is None else first.put(stack, active, chosen)
            for row, loss in zip(active, found, strict=True):
                losses[row].append(loss)
            rates = [rate(self.recipe, step, len(plan)) if step < len(plan) else 0.0 for plan in plans]
            optimiser.step(rates)
            largest = stack.largest()
            for row in active:
                if error := DivergenceError.of(row, step + 1, losses[row][-1], largest[row]):
                    raise error
            if watch is not None:
                watch(stack, losses, rates)
        return stack

    def evaluate(self, subsets: Numbers, seeds: Sequence[int]) -> Floats:
        """Train adapters and evaluate them; arguments as `train`, result as `logprobs`."""
        return self.logprobs(self.train(subsets, seeds))

    def logprobs(self, stack: Stack) -> Floats:
        """The sum of the targets' log-probabilities and their number, for each adapter and evaluated text, float64 `(adapters, evaluated, 2)`."""
        return self._fitting(partial(self._answers, stack))

    def _answers(self, stack: Stack) -> Floats:
        numbers = np.arange(len(self.texts), len(self.texts) + len(self.evaluated))
        found = np.zeros((stack.count, len(self.evaluated), 2))
        with torch.no_grad():
            for rows in _shares(stack.count, len(self.frozen_prefix.nodes(numbers)), self.nodes):
                logprobs, owners = self._logprobs(stack, rows, [numbers] * len(rows), None)
                np.add.at(found[..., 0], (owners[0] + rows[0], owners[1]), logprobs.cpu().double().numpy())
                np.add.at(found[..., 1], (owners[0] + rows[0], owners[1]), 1.0)
        return found

    def gradients(self, stack: Stack, row: int, numbers: Integers, of: Literal["texts", "evaluated"] = "texts") -> Iterator[tuple[Integers, Tensor]]:
        """For one adapter, some texts at a time: their numbers, and the gradient of the sum of each text's target log-probabilities, float32 `(some, size)`."""
        shift = len(self.texts) if of == "evaluated" else 0
        for some, _, slopes in self._each(stack, row, numbers + shift):
            yield some - shift, torch.cat([slope.flatten(1).cpu() for slope in slopes], dim=1)

    def _each(self, stack: Stack, row: int, numbers: Integers) -> Iterator[tuple[Integers, Tensor, list[Tensor]]]:
        """For one adapter, some texts of the frozen prefix at a time: their numbers, sums of log-probabilities, and the gradients of these in every parameter."""
        longest = max(len(self.frozen_prefix.paths[number]) for number in numbers)
        while len(numbers):
            some, sums, slopes = self._fitting(partial(self._apiece, stack, row, numbers, longest))
            yield some, sums, slopes
            numbers = numbers[len(some) :]

    def _apiece(self, stack: Stack, row: int, numbers: Integers, longest: int) -> tuple[Integers, Tensor, list[Tensor]]:
        """As `_each`, for as many texts as fit at once: each has a copy of the adapter in a row of its own, so that one backward pass gives separate gradients."""
        some = numbers[: max(min(self.nodes // longest, self._held), 1)]
        copies = stack.copies(row, len(some))
        weights = [torch.ones(self.frozen_prefix.targets_of(number)) for number in some]
        with _Gradients(copies.parameters):
            logprobs, owners = self._logprobs(copies, list(range(len(some))), [np.array([number]) for number in some], weights)
        # The head passes back the gradient of minus the sum.
        slopes = [-tensor.grad if tensor.grad is not None else torch.zeros_like(tensor) for tensor in copies.parameters]
        return some, torch.zeros(len(some), dtype=logprobs.dtype).index_add_(0, torch.from_numpy(owners[0]), logprobs.cpu()), slopes

    # ---- one pass

    def _fitting(self, what: Callable[[], T]) -> T:
        """Run a computation, again with half as many nodes at once whenever memory runs out; torch's error if `FEWEST_NODES` are too many."""
        while True:
            try:
                return what()
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.nodes <= FEWEST_NODES:
                    raise
            self.nodes = max(self.nodes // 2, FEWEST_NODES)
            release(self.device)

    def _first(self, seed: int, adapters: int) -> "_FirstStep | None":
        """What first steps with this seed share, as all adapters start alike; None if it takes too much memory, or is not there yet and serves one adapter only."""
        if seed not in self._firsts:
            begun = self.start([seed])
            most = FIRST_HELD // max(sum(up.numel() for up in begun.up) * len(self.texts), 1)
            if adapters == 1 or not most:
                return None
            while len(self._firsts) >= most:
                del self._firsts[next(iter(self._firsts))]
            # B is zero at the start, and with it the gradient of A: only those of B are held.
            parts = [(sums, slopes[1::2]) for _, sums, slopes in self._each(begun, 0, np.arange(len(self.texts)))]
            up = [torch.cat(slopes) for slopes in zip(*(slopes for _, slopes in parts), strict=True)]
            counts = torch.tensor([float(self.frozen_prefix.targets_of(number)) for number in range(len(self.texts))])
            self._firsts[seed] = _FirstStep(torch.cat([sums for sums, _ in parts]), counts, up)
        return self._firsts[seed]

    def _pass(self, stack: Stack, active: list[int], chosen: Numbers) -> list[float]:
        """The losses of a step, each the mean over the targets of an adapter's batch; gradients are accumulated in the stack's parameters."""
        sizes = [len(self.frozen_prefix.nodes(numbers)) for numbers in chosen]
        losses = [0.0] * len(active)
        with _Gradients(stack.parameters):
            for places in _grouped(sizes, self.nodes):
                mine = [chosen[place] for place in places]
                counts = [sum(map(self.frozen_prefix.targets_of, numbers)) for numbers in mine]
                weights = [torch.full((count,), 1.0 / count) for count in counts]
                logprobs, owners = self._logprobs(stack, [active[place] for place in places], mine, weights)
                sums = torch.zeros(len(places), dtype=logprobs.dtype).index_add_(0, torch.from_numpy(owners[0]), logprobs.cpu())
                for place, count, total in zip(places, counts, sums.tolist(), strict=True):
                    losses[place] = -total / count
        return losses

    def _logprobs(self, stack: Stack, rows: list[int], chosen: Numbers, weights: list[Tensor] | None) -> tuple[Tensor, tuple[Integers, Integers]]:
        """Log-probabilities of the targets of all rows' texts, `(targets,)`, with the row and text of each; with weights, gradients are passed back."""
        held = self.frozen_prefix.rows(chosen)
        self.tokens += int(held.lengths.sum())
        owner, text, place, token = _flat_targets(self.frozen_prefix, held, chosen)
        wanted, at = np.unique(owner * held.nodes.shape[1] + place, return_inverse=True)
        with stack.applied(torch.tensor(rows)):
            hidden = self.frozen_prefix.run(held, wanted, [site.module for site in self.sites])
        return self.head(hidden, at, token, None if weights is None else torch.cat(weights)), (owner, text)


def _flat_targets(frozen_prefix: FrozenPrefix, held: AdapterRows, chosen: Numbers) -> tuple[Integers, Integers, Integers, Integers]:
    """For every target: row, place of its text in the row's choice, column at which it is predicted, token; int64 `(targets,)` each."""
    parts: list[tuple[Integers, ...]] = []
    for row, numbers in enumerate(chosen):
        text, node, token = targets(frozen_prefix, numbers)
        parts.append((np.full(len(text), row), text, np.searchsorted(held.nodes[row, : held.lengths[row]], node), token))
    owner, text, place, token = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return owner, text, place, token


def _grouped(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Places grouped by similar size, so that no group exceeds the limit once padded to its largest member (unless it has only one)."""
    groups: list[list[int]] = []
    for place in np.argsort(sizes, kind="stable")[::-1].tolist():
        if groups and sizes[groups[-1][0]] * (len(groups[-1]) + 1) <= limit:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _shares(count: int, size: int, limit: int) -> list[list[int]]:
    """Rows of equal size, cut into groups within the limit."""
    step = max(limit // max(size, 1), 1)
    return [list(range(start, min(start + step, count))) for start in range(0, count, step)]


@dataclass(frozen=True, slots=True)
class _FirstStep:
    """For every text at the common start: sum of target log-probabilities and their number, float `(texts,)`, and the sum's gradient in each site's B, `(texts, writes, rank)`."""

    sums: Tensor
    counts: Tensor
    up: list[Tensor]

    def put(self, stack: Stack, rows: list[int], chosen: Numbers) -> list[float]:
        """The losses of the adapters' first batches; their gradients are stored where a backward pass would store them."""
        for tensor in stack.parameters:
            tensor.grad = torch.zeros_like(tensor)
        losses: list[float] = []
        for row, numbers in zip(rows, chosen, strict=True):
            texts = torch.from_numpy(numbers)
            count = self.counts[texts].sum()
            losses.append(float(-self.sums[texts].sum() / count))
            for tensor, slopes in zip(stack.up, self.up, strict=True):
                assert tensor.grad is not None
                tensor.grad[row] = -slopes[texts.to(slopes.device)].sum(0) / float(count)
        return losses


class _AdamW:
    """AdamW (Loshchilov & Hutter, ICLR 2019) for a stack of adapters, each with a learning rate of its own; zero leaves an adapter unchanged."""

    def __init__(self, stack: Stack, weight_decay: float) -> None:
        self._parameters = stack.parameters
        self._decay = weight_decay
        self._first = [torch.zeros_like(tensor) for tensor in self._parameters]
        self._second = [torch.zeros_like(tensor) for tensor in self._parameters]
        self._count = 0

    def step(self, rates: Sequence[float]) -> None:
        """Update every parameter; `rates` are the adapters' learning rates."""
        self._count += 1
        first, second = (1 - beta**self._count for beta in BETAS)
        paces = {device: torch.tensor(rates, device=device)[:, None, None] for device in {tensor.device for tensor in self._parameters}}
        for tensor, mean, square in zip(self._parameters, self._first, self._second, strict=True):
            slope = tensor.grad
            if slope is None:
                continue
            pace = paces[tensor.device]
            mean.lerp_(slope, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
            if self._decay:
                tensor.mul_(1 - pace * self._decay)
            tensor.sub_(pace / first * mean / (square.sqrt() / math.sqrt(second) + EPSILON))


@dataclass
class _Gradients:
    """Within a `with` block, tensors require gradients, starting from none."""

    tensors: list[Tensor]

    def __enter__(self) -> None:
        for tensor in self.tensors:
            tensor.grad = None
            tensor.requires_grad_()

    def __exit__(self, *_: object) -> None:
        for tensor in self.tensors:
            tensor.requires_grad_(False)
