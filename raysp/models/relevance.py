"""Relevance propagation (RelP, arXiv 2508.21258): rules in place of plain derivatives, so that a backward pass decomposes the logits. Independent of components.

Within `propagation_rules` a model computes what it always does, but its derivatives are those of a function that is linear around the input: the scale of a norm
(LN-rule), attention weights (AH-rule) and what gates are multiplied with through a sigmoid are constants; an activation is its input times the constant ratio
of output to input (identity rule); the derivative of a product of two activations is halved for each (half rule). Then the relevances of the activations that
enter a layer, each an activation times its derivative, add up with those of the biases to the logits. The rules apply to tensor operations and to activation
modules, so that no architecture is named; `deviation` measures whether they cover one.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from raysp.models.blockwise import BlockwiseModel

#: Operations, by their names, whose results are constants: attention weights, gates and the scales of norms.
CONSTANT = frozenset({"softmax", "sigmoid", "rsqrt", "sqrt", "std", "norm", "vector_norm", "exp"})
#: Operations that are activations, products of two activations, and quotients of an activation and its scale.
ACTIVATIONS = frozenset({"relu", "silu", "gelu", "mish", "tanh", "leaky_relu", "elu", "relu6", "hardswish"})
PRODUCTS = frozenset({"mul", "multiply", "__mul__", "__rmul__", "matmul", "__matmul__", "bmm"})
QUOTIENTS = frozenset({"div", "true_divide", "__truediv__"})
POWERS = frozenset({"pow", "__pow__", "float_power"})
#: Modules whose classes' modules begin with these names, or whose classes have these words in their names, are activations; those with words of `GATES` are not.
ACTIVATION_MODULES, ACTIVATION_WORDS = ("torch.nn.modules.activation", "transformers.activations"), ("gelu", "silu", "relu", "swish")
GATES = ("softmax", "sigmoid", "attention", "softmin")
#: The mark of tensors that depend on gates alone.
MARK = "_raysp_depends_on_gates_alone"
#: The largest deviation at which the rules are taken to cover a model, and the same for dtypes of fewer than 32 bits.
TOLERANCE, NARROW_TOLERANCE = 1e-3, 0.05
#: The last part of the names of parameters that are added.
ADDED = ("bias", "beta")


def _constant(tensor: Any) -> Any:
    return tensor.detach() if isinstance(tensor, Tensor) else tensor


def _moves(value: Any) -> bool:
    # Weights may need gradients, but are no activations.
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


def _through_ratio(entering: Tensor, leaving: Tensor) -> Tensor:
    """The leaving activations as the entering ones times a constant; 0 where the entering one is 0."""
    ratio = leaving.detach() / torch.where(entering == 0, torch.ones_like(entering), entering).detach()
    return entering * torch.where(entering == 0, torch.zeros_like(ratio), ratio)


def _halved(tensor: Any) -> Tensor:
    half = tensor * 0.5
    return half + half.detach()


def _layer_norm(entering: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    axes = tuple(range(-len(tuple(normalized_shape)), 0))
    centred = entering - entering.mean(axes, keepdim=True)
    return _scaled(centred, axes, weight, bias, eps)


def _rms_norm(entering: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    axes = tuple(range(-len(tuple(normalized_shape)), 0))
    return _scaled(entering, axes, weight, None, torch.finfo(entering.dtype).eps if eps is None else eps)


def _scaled(centred: Tensor, axes: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    wide = torch.promote_types(centred.dtype, torch.float32)
    scale = torch.rsqrt(centred.detach().to(wide).pow(2).mean(axes, keepdim=True) + eps)
    normed = (centred.to(wide) * scale).to(centred.dtype)
    normed = normed if weight is None else normed * weight
    return normed if bias is None else normed + bias


def _attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
    return functional.scaled_dot_product_attention(query.detach(), key.detach(), value, *rest, **options)


WHOLE: Mapping[str, Callable[..., Tensor]] = {"layer_norm": _layer_norm, "rms_norm": _rms_norm, "scaled_dot_product_attention": _attention}


class _Rules(TorchFunctionMode):
    """The rules on tensor operations. Products with what depends on `gates` alone keep their derivatives: a gate is no activation."""

    def __init__(self, gates: Tensor | None) -> None:
        super().__init__()
        if gates is not None:
            setattr(gates, MARK, True)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        options = dict(kwargs or {})
        moving = [value for value in (*args, *options.values()) if _moves(value)]
        if not moving:
            return func(*args, **options)
        if all(hasattr(value, MARK) for value in moving):
            found = func(*args, **options)
            if _moves(found):
                setattr(found, MARK, True)
            return found
        return self._ruled(str(getattr(func, "__name__", "")), func, args, options)

    def _ruled(self, name: str, func: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        if name in WHOLE:
            return WHOLE[name](*args, **options)
        if name in CONSTANT or (name in POWERS and len(args) > 1 and isinstance(args[1], float) and args[1] < 1):
            return _constant(func(*args, **options))
        if name in ACTIVATIONS:
            return _through_ratio(args[0], func(*args, **options))
        first, second = (*args[:2], None, None)[:2]
        if _moves(first) and _moves(second) and not hasattr(first, MARK) and not hasattr(second, MARK):
            if name in PRODUCTS:
                return func(_halved(first), _halved(second), *args[2:], **options)
            if name in QUOTIENTS:
                return func(first, _constant(second), *args[2:], **options)
        return func(*args, **options)


def _is_activation(module: Any) -> bool:
    kind: Any = type(module)
    name = kind.__name__.lower()
    known = str(kind.__module__).startswith(ACTIVATION_MODULES) or any(word in name for word in ACTIVATION_WORDS)
    return known and not any(word in name for word in GATES) and not any(module.children())


def _after(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:  # noqa: ARG001  torch passes the module
    # Some activations are written as several operations, which only as a whole are an activation.
    return _through_ratio(inputs[0], output) if _moves(inputs[0]) else output


@contextmanager
def propagation_rules(model: nn.Module, gates: Tensor | None = None) -> Generator[None]:
    """Within a `with` block, what a model with frozen weights computes has the derivatives of the rules; those in `gates`, which multiply activations, are the relevances.

    For that the gates are all 1. With other gates, it is the relevance at the model with these gates, per unit of gate.
    """
    handles = [module.register_forward_hook(_after) for module in model.modules() if _is_activation(module)]
    try:
        with _Rules(gates):
            yield
    finally:
        for handle in handles:
            handle.remove()


def uncovered(blockwise: BlockwiseModel, ids: Tensor, layer: int = 0) -> str | None:
    """A remark if the rules do not cover what the model does from a layer on; None if they do."""
    found = deviation(blockwise, ids, layer)
    tolerance = NARROW_TOLERANCE if torch.finfo(blockwise.dtype).bits < torch.finfo(torch.float32).bits else TOLERANCE
    return (
        None
        if found <= tolerance
        else f"no RelP: relevances miss what they should add up to by {found:.2g} of it, so this model does what its rules do not cover"
    )


def deviation(blockwise: BlockwiseModel, ids: Tensor, layer: int = 0) -> float:
    """How far relevances are from adding up, relative to what they should add up to, for inputs int64 `(s, length)` and all that enters `layer` or is a bias.

    What is decomposed is the sum of the last position's logits, each weighted by its own value. 0 (but for rounding) if the rules cover everything that the model
    does from that layer on.
    """
    biases = [value for name, value in blockwise.model.named_parameters() if name.rpartition(".")[2] in ADDED]
    before = [bias.requires_grad for bias in biases]
    entry, calls = blockwise.entry(ids, layer).detach(), blockwise.calls(ids)
    try:
        for bias in biases:
            bias.requires_grad_(True)
        with torch.enable_grad():
            leaves = [entry.clone().requires_grad_(), *biases]
            with propagation_rules(blockwise.model):
                hidden = leaves[0]
                for number in range(layer, blockwise.architecture.layers):
                    hidden = calls[number](blockwise.architecture.blocks[number].module, hidden)
                logits = blockwise.logits(ids, hidden, ids.shape[1] - 1)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            whole = (logits * logits.detach()).sum()
            gradients: Any = torch.autograd.grad(whole, leaves, allow_unused=True)
        shares = zip(leaves, gradients, strict=True)
        found = sum(float((leaf.detach().double() * gradient.double()).sum()) for leaf, gradient in shares if gradient is not None)
    finally:
        for bias, needed in zip(biases, before, strict=True):
            bias.requires_grad_(needed)
    return abs(found - float(whole.detach())) / max(float(whole.detach()), 1e-30)
