"""From the last block's output at chosen positions to log-probabilities of tokens, and back: the head is applied there only, a few rows at a time.

The logits of a batch are the largest tensor in training (rows x vocabulary, which an ordinary loop keeps for the backward pass). Here a chunk of them is computed,
read, turned into its own gradient in place, and dropped. If a model does more than a matrix product after its last norm (capped or scaled logits), autograd
handles the chunk. Log-softmax and loss are computed in at least float32.
"""

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from raysp.models.architecture import Architecture, replaced_forward
from raysp.models.blockwise import BlockwiseModel
from raysp.models.inputs import Integers
from raysp.models.resident import TOLERANCE

#: Rows of logits computed at once: more of them use the hardware better.
CHUNK = {"cpu": 768, "cuda": 2048, "mps": 512}
#: Most bytes of logits at once, whatever the size of the vocabulary.
LOGITS = 1 << 29
#: Numbers of a weight in bfloat16 or float16 that are converted to float32 at a time.
CONVERTED = 1 << 22
#: Rows that several passes are made over at once, while they are in the processor's caches; all on other devices.
READ = {"cpu": 8}


class _ReachedError(Exception):
    """Raised to stop a forward pass once the head's input is there."""


@dataclass(slots=True)
class TargetLoss:
    """The last norm and the head of a model."""

    model: Any
    architecture: Architecture
    device: torch.device
    plain: bool = field(init=False)
    _blockwise: BlockwiseModel = field(init=False, repr=False)
    _room: Tensor | None = field(init=False, repr=False, default=None)
    _tuples: tuple[bool, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._blockwise = BlockwiseModel(self.model, self.architecture, self.device)
        ids = torch.ones((1, 2), dtype=torch.long, device=self.device)
        self._tuples = tuple(call.gives_tuple for call in self._blockwise.calls(ids))
        self.plain = self._is_plain(ids)

    def __call__(self, hidden: Tensor, at: Integers, tokens: Integers, weights: Tensor | None = None) -> Tensor:
        """Log-probabilities (float32 or more, `(targets,)`) of `tokens` at rows `at` of `hidden` `(rows, channels)`.

        With `weights`, `(targets,)`, the gradient of minus their weighted sum is passed back through `hidden`.
        """
        head = self.model.get_output_embeddings()
        with contextlib.nullcontext() if weights is not None else torch.no_grad():
            reading = self._reading(hidden).to(head.weight.device) if self.plain else hidden
        where, which = (torch.from_numpy(array).to(reading.device) for array in (at, tokens))
        wide = torch.promote_types(hidden.dtype, torch.float32)
        found = torch.empty(len(at), dtype=wide, device=reading.device)
        slope = None if weights is None else torch.empty_like(reading)
        weights = None if weights is None else weights.to(reading.device, wide)
        step = max(min(CHUNK.get(self.device.type, CHUNK["cpu"]), LOGITS // (wide.itemsize * len(head.weight))), 1)
        for start in range(0, len(hidden), step):
            some = reading[start : start + step].detach()
            mine = torch.nonzero((where >= start) & (where < start + step))[:, 0]
            chunk = self._product if self.plain else self._autograd
            found[mine], back = chunk(some, where[mine] - start, which[mine], None if weights is None else weights[mine])
            if slope is not None and back is not None:
                slope[start : start + step] = back
        if slope is not None:
            torch.autograd.backward(reading, slope)
        return found

    def _product(self, some: Tensor, at: Tensor, tokens: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        head = self.model.get_output_embeddings()
        with torch.no_grad():
            logits = self._logits(some, head)
            chosen = logits[at, tokens]
            most, total = logits.new_empty(len(logits)), logits.new_empty(len(logits))
            step = READ.get(self.device.type, len(logits))
            for start in range(0, len(logits), step):
                part = slice(start, start + step)
                most[part] = logits[part].amax(1)
                total[part] = logits[part].sub_(most[part, None]).exp_().sum(1)
            logprobs = chosen - (most + total.log())[at]
            if weights is None:
                return logprobs, None
            # The gradient of a row is now `logits` times `weight / total`.
            weight = torch.zeros_like(total).index_add_(0, at, weights)
            logits.index_put_((at, tokens), -weights * (total / weight)[at], accumulate=True)
            if not _is_narrow(head.weight):  # scaling the product takes fewer multiplications
                return logprobs, (logits @ head.weight).mul_((weight / total)[:, None])
            # float16 can represent probabilities, but not large sums of them.
            return logprobs, self._back(logits.div_(total[:, None]), head.weight).mul_(weight[:, None])

    def _logits(self, some: Tensor, head: Any) -> Tensor:
        """The head's product of some rows, float32 or more `(rows, vocabulary)`, in a reused buffer: allocating new pages costs a fifth of the product.

        Rounded to bfloat16, a logit of 20 would be off by up to 0.06, which is more than most single examples change it.
        """
        wide = torch.promote_types(some.dtype, torch.float32)
        if some.is_cuda and _is_narrow(head.weight):
            logits = torch.mm(some, head.weight.T, out_dtype=wide)  # exact products, summed in float32
            return logits if head.bias is None else logits.add_(head.bias)
        if self._room is None or len(self._room) < len(some):
            self._room = some.new_empty((len(some), len(head.weight)), dtype=wide)
        logits = self._room[: len(some)]
        for columns in _columns(head.weight):
            torch.mm(some.to(wide), head.weight[columns].to(wide).T, out=logits[:, columns])
        return logits if head.bias is None else logits.add_(head.bias)

    @staticmethod
    def _back(slopes: Tensor, weight: Tensor) -> Tensor:
        """`slopes @ weight`, float32 `(rows, channels)`, for a narrow weight."""
        if slopes.is_cuda:
            return torch.mm(slopes.to(weight.dtype), weight, out_dtype=slopes.dtype)
        found = slopes.new_zeros((len(slopes), weight.shape[1]))
        for columns in _columns(weight):
            found.addmm_(slopes[:, columns], weight[columns].to(slopes.dtype))
        return found

    def _autograd(self, some: Tensor, at: Tensor, tokens: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        with torch.enable_grad() if weights is not None else torch.no_grad():
            leaf = some.requires_grad_(weights is not None)
            logits = self._blockwise.logits(self._filler(len(leaf)), leaf[None], 0)[0].to(leaf.device)
            logprobs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)[at, tokens]
            if weights is None:
                return logprobs, None
            (slope,) = torch.autograd.grad(-(logprobs * weights).sum(), leaf)
            return logprobs.detach(), slope

    def _reading(self, hidden: Tensor) -> Tensor:
        """The input of the head, `(rows, channels)`: usually the last norm of the hidden states."""
        reached: list[Tensor] = []

        def stop(read: Tensor) -> None:
            reached.append(read)
            raise _ReachedError

        blocks = [block.module for block in self.architecture.blocks]
        bridges = [self._bridge(number, hidden[None]) for number in range(len(blocks))]
        with replaced_forward([*blocks, self.model.get_output_embeddings()], [*bridges, stop]), contextlib.suppress(_ReachedError):
            self._blockwise.forward(self._filler(len(hidden)), len(hidden))
        return reached[0][0]

    def _bridge(self, number: int, hidden: Tensor) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            passed = hidden if number == self.architecture.layers - 1 else args[0] if args else kwargs["hidden_states"]
            return (passed,) if self._tuples[number] else passed

        return forward

    def _filler(self, length: int) -> Tensor:
        """Token ids of this length; their embeddings are replaced by hidden states."""
        return torch.zeros((1, length), dtype=torch.long, device=self.device)

    def _is_plain(self, ids: Tensor) -> bool:
        """Whether the model's logits are exactly the head's matrix product with its input."""
        head = self.model.get_output_embeddings()
        with torch.no_grad():
            hidden = self._blockwise.entry(ids, self.architecture.layers)[0]
            expected = self._blockwise.logits(ids, hidden[None], 0)[0]
            try:
                product = functional.linear(self._reading(hidden).to(head.weight.device), head.weight, head.bias).to(expected.device)
            except (AttributeError, IndexError, TypeError, RuntimeError):
                return False
        return bool((product - expected).abs().max() <= TOLERANCE[self.model.dtype] * (1 + expected.abs().max()))


def _is_narrow(weight: Tensor) -> bool:
    return weight.dtype.itemsize < torch.float32.itemsize


def _columns(weight: Tensor) -> list[slice]:
    """Parts of the vocabulary to be multiplied at once: all of it, or so many rows of a narrow weight as are converted at a time."""
    step = max(CONVERTED // weight.shape[1], 1) if _is_narrow(weight) else len(weight)
    return [slice(start, min(start + step, len(weight))) for start in range(0, len(weight), step)]
