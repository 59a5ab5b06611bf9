"""The blocks of a transformer, and where the heads and neurons of each can be reached, found from its structure.

A block's attention ends in a linear layer that reads the concatenated outputs of the heads; its MLP ends in one that reads the neurons. Two tokens are run
through the model to identify them: they are the last linear layers to run inside and outside the block's attention. There is no list of architectures, and
names matter only once: an attention module has `attn` or `attention` in its name.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raysp.errors import UserError

#: Substrings by which a block's attention module is recognised.
ATTENTION = ("attn", "attention")
#: Substrings by which modules are recognised whose neurons depend on a router.
ROUTED = ("expert", "moe")
#: What an attention module calls the number of the heads whose outputs its last projection reads. Layers of a hybrid have counts of their own.
HEAD_COUNTS = ("num_v_heads", "num_heads", "num_attention_heads", "n_heads", "n_head", "num_attn_heads")
KNOWN = "Llama, Qwen, Mistral, Gemma, GPT-2, GPT-NeoX, Phi, OPT and BERT are some that have them"


@dataclass(frozen=True, slots=True)
class Block:
    """One layer: the module, the projection that reads its heads, and the one that reads its neurons (None if it was not found)."""

    module: Any
    attention: Any | None
    mlp: Any | None
    heads: int

    @property
    def head_width(self) -> int:
        """Number of channels in the output of a head."""
        return 0 if self.attention is None else width_in(self.attention) // self.heads

    @property
    def neurons(self) -> int:
        """Number of neurons in the MLP."""
        return 0 if self.mlp is None else width_in(self.mlp)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The blocks of a model, in the order of its layers."""

    blocks: tuple[Block, ...]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.blocks)


def width_in(linear: Any) -> int:
    """Number of input channels of a linear layer; GPT-2 stores its weights transposed."""
    return int(linear.in_features) if isinstance(linear, nn.Linear) else int(linear.weight.shape[0])


def width_out(linear: Any) -> int:
    """Number of output channels of a linear layer."""
    return int(linear.out_features) if isinstance(linear, nn.Linear) else int(linear.weight.shape[1])


def is_linear(module: Any) -> bool:
    """Whether a module is a linear layer, transposed or not."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def read_architecture(model: Any, name: str) -> Architecture:
    """The architecture of a model; `name` appears in the message. UserError, stating what was searched for, if no such structure is found."""
    config = model.config.get_text_config()
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int) or not isinstance(getattr(config, "num_attention_heads", None), int):
        raise _unknown(name, "its configuration has no num_hidden_layers and num_attention_heads")
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers and all(_attention_of(block) is not None for block in m)]
    if len(stacks) != 1:
        found = "no list" if not stacks else f"{len(stacks)} lists"
        raise _unknown(name, f"it has {found} of {layers} blocks with an attention module each")
    last = _last_linears(model, list(stacks[0]))
    return Architecture(tuple(_block(module, *ends, config) for module, ends in zip(stacks[0], last, strict=True)))


def _unknown(name: str, problem: str) -> UserError:
    looked = f"looked for one list of blocks, in each a module named attention or attn that ends in a linear layer; {KNOWN}"
    return UserError("model", name, f"has an architecture whose heads cannot be found: {problem}", looked)


def _attention_of(block: Any) -> Any | None:
    """The block's attention: the first child with a matching name that contains linear layers (norms can have matching names, too)."""
    for name, child in block.named_children():
        if any(word in name.lower() for word in ATTENTION) and any(is_linear(inner) for inner in child.modules()):
            return child
    return None


def _last_linears(model: Any, blocks: list[Any]) -> list[tuple[Any | None, Any | None]]:
    """For each block, the last linear layer to run inside its attention and the last to run outside it."""
    attentions = [_attention_of(block) for block in blocks]
    inside = [{id(inner) for inner in attention.modules()} for attention in attentions if attention is not None]
    ends: list[list[Any | None]] = [[None, None] for _ in blocks]

    def note(number: int) -> Any:
        def hook(module: Any, *_: Any) -> None:
            ends[number][0 if id(module) in inside[number] else 1] = module

        return hook

    handles = [inner.register_forward_hook(note(i)) for i, block in enumerate(blocks) for inner in block.modules() if is_linear(inner)]
    try:
        with torch.no_grad():
            model(input_ids=torch.ones((1, 2), dtype=torch.long, device=model.get_input_embeddings().weight.device))
    finally:
        for handle in handles:
            handle.remove()
    return [(attention, mlp) for attention, mlp in ends]


def _block(module: Any, attention: Any | None, mlp: Any | None, config: Any) -> Block:
    """A block with those projections that write to the residual stream; that of the attention must also read as many equal heads as the attention states."""
    hidden, heads = int(config.hidden_size), _heads(module, int(config.num_attention_heads))
    if attention is not None and (width_out(attention) != hidden or width_in(attention) % heads):
        attention = None
    routed = any(word in name.lower() for name, _ in module.named_modules() for word in ROUTED)
    if mlp is not None and (width_out(mlp) != hidden or routed):
        mlp = None
    return Block(module, attention, mlp, heads)


def _heads(block: Any, configured: int) -> int:
    """The number of heads that a block's attention module states itself, else the one of the configuration."""
    attention = _attention_of(block)
    stated = (getattr(inner, name, None) for inner in attention.modules() for name in HEAD_COUNTS) if attention is not None else ()
    return next((count for count in stated if isinstance(count, int) and count > 0), configured)


@contextmanager
def replaced_forward(modules: list[Any], forwards: list[Any]) -> Generator[None]:
    """Replace the forward functions of modules within a `with` block. A function set on the module itself, as accelerate does, is restored afterwards."""
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for module, forward in zip(modules, forwards, strict=True):
            module.forward = forward
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            if own is None:
                del module.forward
            else:
                module.forward = own
