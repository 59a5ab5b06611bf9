"""Low-rank adapters (Hu et al., ICLR 2022) in stacks: row r of a batch goes through adapter r. Independent of texts and training.

As in PEFT, `alpha / rank * B A x` is added to the output of a linear layer; A starts with PEFT's distribution and B at zero, without dropout. Adapters compute in
float32 whatever the dtype of the model, and can be saved in PEFT's format.
"""

import hashlib
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from raysp.errors import UserError
from raysp.models.architecture import Architecture, is_linear, width_in, width_out

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is built and trained. Linear layers named in `modules` are adapted in the blocks numbered in `layers`."""

    rank: int
    alpha: float
    modules: tuple[str, ...]
    layers: tuple[int, ...]
    learning_rate: float
    weight_decay: float
    schedule: Schedule
    warmup: float
    epochs: int
    batch_size: int

    @property
    def scale(self) -> float:
        """The factor of `B A x`."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Site:
    """An adapted linear layer: the module, its name in the model, its block, and its numbers of input and output channels."""

    module: Any
    name: str
    layer: int
    reads: int
    writes: int


def sites(model: Any, architecture: Architecture, recipe: Recipe) -> tuple[Site, ...]:
    """The layers that a recipe adapts, in the model's order. UserError, listing what there is, for an unknown name or number."""
    names = {id(module): name for name, module in model.named_modules()}
    wrong = [layer for layer in recipe.layers if not 0 <= layer < architecture.layers]
    if wrong:
        raise UserError("adapted_layers", wrong[0], f"is not a layer of the model, which has {architecture.layers}", f"name layers 0-{architecture.layers - 1}")
    found: list[Site] = []
    linear: set[str] = set()
    for layer in sorted(set(recipe.layers)):
        for module in architecture.blocks[layer].module.modules():
            if is_linear(module):
                name = names[id(module)]
                linear.add(name.rpartition(".")[2])
                if name.rpartition(".")[2] in recipe.modules:
                    found.append(Site(module, name, layer, width_in(module), width_out(module)))
    for name in recipe.modules:
        if name not in linear:
            raise UserError("target_modules", name, "is not a linear layer of these blocks", f"name some of {', '.join(sorted(linear))}")
    return tuple(found)


class Stack:
    """`count` adapters side by side: for each site A float32 `(count, rank, reads)` and B float32 `(count, writes, rank)`, on the site's device."""

    def __init__(self, places: Sequence[Site], recipe: Recipe, down: list[Tensor], up: list[Tensor]) -> None:
        self.sites, self.recipe, self.down, self.up = tuple(places), recipe, down, up

    @classmethod
    def start(cls, places: Sequence[Site], recipe: Recipe, seeds: Sequence[int]) -> "Stack":
        """Untrained adapters, one for each seed: A uniform within ±1 / sqrt(reads), as in PEFT, from a stream of the seed and the site's name; B zero."""
        down, up = list[Tensor](), list[Tensor]()
        for site in places:
            drawn = {seed: _drawn(seed, site, recipe.rank) for seed in set(seeds)}
            device = site.module.weight.device
            down.append(torch.stack([drawn[seed] for seed in seeds]).to(device))
            up.append(torch.zeros((len(seeds), site.writes, recipe.rank), device=device))
        return cls(places, recipe, down, up)

    @property
    def count(self) -> int:
        """Number of adapters."""
        return len(self.down[0])

    @property
    def size(self) -> int:
        """Number of parameters of one adapter."""
        return sum(tensor[0].numel() for tensor in self.parameters)

    @property
    def parameters(self) -> list[Tensor]:
        """A and B of every site, site by site."""
        return [tensor for pair in zip(self.down, self.up, strict=True) for tensor in pair]

    def largest(self) -> list[float]:
        """The magnitude of each adapter's largest weight; NaN if any is NaN."""
        sizes = [tensor.detach().flatten(1).abs().amax(1) for tensor in self.parameters]
        return torch.stack([size.to(sizes[0].device) for size in sizes]).amax(0).tolist()

    def copies(self, row: int, count: int) -> "Stack":
        """A stack of `count` copies of one adapter."""
        return Stack(self.sites, self.recipe, *([tensor[row].detach().expand(count, -1, -1).clone() for tensor in tensors] for tensors in (self.down, self.up)))

    def flat(self) -> Tensor:
        """All parameters, float32 `(count, size)`, on the CPU."""
        return torch.cat([tensor.detach().flatten(1).cpu() for tensor in self.parameters], dim=1)

    @contextmanager
    def applied(self, rows: Tensor) -> Generator[None]:
        """Within a `with` block, row i of the model's batch goes through adapter `rows[i]`, int64 `(batch,)`."""
        handles = [
            site.module.register_forward_hook(_hook(down[rows.to(down.device)], up[rows.to(up.device)], self.recipe.scale))
            for site, down, up in zip(self.sites, self.down, self.up, strict=True)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def save(self, folder: Path, row: int, base: str) -> None:
        """Save one adapter in PEFT's format, for `PeftModel.from_pretrained`; `base` names its base model."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            f"base_model.model.{site.name}.lora_{letter}.weight": tensor[row].detach().cpu().contiguous()
            for site, *pair in zip(self.sites, self.down, self.up, strict=True)
            for letter, tensor in zip("AB", pair, strict=True)
        }
        save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        told = configuration(self.sites, self.recipe, base).to_dict()
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in told.items()}
        (folder / "adapter_config.json").write_text(json.dumps(plain, indent=1, default=str), encoding="utf-8")


def configuration(places: Sequence[Site], recipe: Recipe, base: str | None = None) -> Any:
    """The recipe as a `peft.LoraConfig` that names each layer."""
    from peft import LoraConfig

    names = [site.name for site in places]
    transposed = any(type(site.module).__name__ == "Conv1D" for site in places)
    return LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=0.0, bias="none", target_modules=names, fan_in_fan_out=transposed,  # pyright: ignore[reportArgumentType]  PEFT takes a fractional alpha
        task_type="CAUSAL_LM", base_model_name_or_path=base, inference_mode=True,
    )  # fmt: skip


def _drawn(seed: int, site: Site, rank: int) -> Tensor:
    stream = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {site.name}".encode()).digest()[:7], "big"))
    return (torch.rand((rank, site.reads), generator=stream) * 2 - 1) / site.reads**0.5


def _hook(down: Tensor, up: Tensor, scale: float) -> Any:
    def add(module: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:  # noqa: ARG001  torch passes the module
        lower = torch.bmm(inputs[0].to(down.dtype), down.transpose(1, 2))
        return (output + scale * torch.bmm(lower, up.transpose(1, 2))).to(output.dtype)

    return add
