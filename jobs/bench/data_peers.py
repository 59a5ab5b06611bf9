"""The peers of `data_lds.py`, used as documented: traker and dattri on PEFT's LoRA parameters of the same model, with the same adapters, texts and queries.

Every peer takes a `Checkpoints` and gives predicted effects `v(all) - v(all without i)` on each query's log-probability, float64 `(queries, examples)`. One that is
not installed raises ImportError. Peers average over all checkpoints that they are given: trainings on everything from several seeds.
"""

import contextlib
import copy
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from raysp.models.frozen_prefix import Text
from raysp.models.influence import DAMPING
from raysp.models.inputs import Floats

#: Columns of TRAK's projection; texts that go through the model at once.
PROJECTED, BATCH = 512, 8
#: DataInf's damping: this share of the mean square of the gradients' entries (Kwon et al. 2024, section 4).
DATAINF = 0.1


@dataclass
class Checkpoints:
    """A causal model, folders of adapters in PEFT's format that were trained on all texts, the training texts and one text a query."""

    model: Any
    folders: Sequence[Path]
    texts: Sequence[Text]
    evaluated: Sequence[Text]

    def adapted(self) -> "Adapted":
        """The model with the first adapter, whose LoRA weights are its only parameters."""
        return Adapted(self.model, self.folders[0])

    def states(self, adapted: "Adapted") -> list[dict[str, Tensor]]:
        """Every adapter as a state dict of `adapted`."""
        return [adapted.read(folder) for folder in self.folders]


class Pair(nn.Module):
    """The two matrices of an adapted layer."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(a.detach().clone()), nn.Parameter(b.detach().clone())


class Adapted(nn.Module):
    """A PEFT model as a function of its LoRA weights; all other weights are hidden, because the peers would differentiate all 135 million of them."""

    def __init__(self, model: Any, folder: Path) -> None:
        from peft import PeftModel

        super().__init__()
        adapted: Any = PeftModel.from_pretrained(copy.deepcopy(model), folder)
        frozen = adapted.base_model.model.eval()
        frozen.set_attn_implementation("eager")  # what vmap can look into
        found = {name: parameter for name, parameter in frozen.named_parameters() if ".lora_" in name}
        self.names = [name for name in found if ".lora_A." in name]
        self.layers = nn.ModuleList(Pair(found[name], found[_other(name)]) for name in self.names)
        self.frozen = (frozen.requires_grad_(requires_grad=False),)  # in a tuple: no submodule

    def read(self, folder: Path) -> dict[str, Tensor]:
        """An adapter's weights under the names that they have here."""
        from safetensors.torch import load_file

        saved = load_file(folder / "adapter_model.safetensors")
        stored = [f"base_model.model.{name.replace('.default', '')}" for name in self.names]
        return {f"layers.{place}.{letter}": saved[name if letter == "a" else _other(name)] for place, name in enumerate(stored) for letter in ("a", "b")}

    def forward(self, ids: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each token from the ones before it, and of any other token instead, `(batch, length - 1)`, for ids `(batch, length)`; 0 where not wanted."""
        weights: dict[str, Tensor] = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            pair = cast("Pair", layer)
            weights[name], weights[_other(name)] = pair.a, pair.b
        length = ids.shape[1]
        mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
        told = {"attention_mask": mask, "position_ids": torch.arange(length)[None], "use_cache": False}
        logits = torch.func.functional_call(self.frozen[0], weights, (ids,), told).logits[:, :-1].float()
        there = wanted[:, 1:]
        chosen = torch.arange(logits.shape[-1]) == ids[:, 1:, None]
        total = logits.logsumexp(-1)
        scores = torch.where(chosen, logits, 0.0).sum(-1) - total
        others = logits.masked_fill(chosen, -torch.inf).logsumexp(-1) - total
        return scores * there, others * there


def _other(name: str) -> str:
    return name.replace(".lora_A.", ".lora_B.")


def padded(texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """Ids int64 and whether each is a target, float32, `(texts, longest)`, padded at the end, where no real token attends to it."""
    longest = max(len(text.ids) for text in texts)
    ids, wanted = torch.zeros((len(texts), longest), dtype=torch.int64), torch.zeros((len(texts), longest))
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.from_numpy(text.ids)
        wanted[row, text.first : len(text.ids)] = 1.0
    return ids, wanted


def traker(given: Checkpoints) -> Floats:
    """TRAK (Park et al. 2023) by traker: output log(p / (1 - p)), mean over the targets; as many projected columns as leave it a ridge of our damping's strength."""
    from trak import TRAKer  # pyright: ignore[reportMissingImports]  of the extra `bench`, as the other peers
    from trak.modelout_functions import AbstractModelOutput  # pyright: ignore[reportMissingImports]

    class LogOdds(AbstractModelOutput):  # pyright: ignore[reportUntypedBaseClass]
        def __init__(self) -> None:
            pass

        @staticmethod
        def get_output(model: Any, weights: Any, buffers: Any, ids: Tensor, wanted: Tensor) -> Tensor:  # type: ignore[override]
            scores, others = torch.func.functional_call(model, (weights, buffers), (ids[None], wanted[None]))
            return (scores - others).sum() / wanted.sum()

        def get_out_to_loss_grad(self, model: Any, weights: Any, buffers: Any, batch: Any) -> Tensor:  # type: ignore[override]
            ids, wanted = batch
            with torch.no_grad():
                scores, _ = torch.func.functional_call(model, (weights, buffers), (ids, wanted))
            return 1 - (scores.exp() * wanted[:, 1:]).sum(1, keepdim=True) / wanted.sum(1, keepdim=True)

    adapted = given.adapted()
    states = given.states(adapted)
    texts, queries = padded(given.texts), padded(given.evaluated)
    with tempfile.TemporaryDirectory() as folder, _silent():
        tracer = TRAKer(adapted, LogOdds(), len(given.texts), folder, device="cpu", proj_dim=PROJECTED, use_half_precision=False, logging_level=50)
        for number, state in enumerate(states):
            tracer.load_checkpoint(state, model_id=number)
            for some in _batches(texts):
                tracer.featurize(batch=some, num_samples=len(some[0]))
        features = [np.asarray(tracer.saver.current_store["grads"])]
        tracer.score_computer.lambda_reg = DAMPING * float((features[0] ** 2).sum()) / min(features[0].shape)
        tracer.finalize_features()
        for number, state in enumerate(states):
            tracer.start_scoring_checkpoint("queries", state, number, len(given.evaluated))
            for some in _batches(queries):
                tracer.score(batch=some, num_samples=len(some[0]))
        return np.asarray(tracer.finalize_scores("queries"), dtype=np.float64).T.copy()


def dattri(given: Checkpoints) -> Floats:
    """DataInf (Kwon et al. 2024: influence functions for LoRA, a closed form a layer) by dattri."""
    from dattri.algorithm import IFAttributorDataInf  # pyright: ignore[reportMissingImports]
    from dattri.task import AttributionTask  # pyright: ignore[reportMissingImports]
    from torch.utils.data import DataLoader, TensorDataset

    adapted = given.adapted()

    def loss(parameters: Any, data: Any) -> Tensor:
        scores, _ = torch.func.functional_call(adapted, parameters, data)
        return -scores.sum()

    task = AttributionTask(loss_func=loss, model=adapted, checkpoints=given.states(adapted))
    train, queries = (DataLoader(TensorDataset(*padded(texts)), batch_size=BATCH) for texts in (given.texts, given.evaluated))
    with _silent():
        attributor = IFAttributorDataInf(task=task, device="cpu", regularization=1.0)
        attributor.cache(train)
        squares = torch.stack([rows.square().mean() for rows in attributor._cached_train_reps.values()])  # noqa: SLF001  the gradients' size is not accessible otherwise
        attributor.regularization = DATAINF * float(squares.mean())
        return attributor.attribute(train, queries).detach().double().numpy().T.copy()


def _batches(arrays: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(arrays[0][start : start + BATCH], arrays[1][start : start + BATCH]) for start in range(0, len(arrays[0]), BATCH)]


@contextlib.contextmanager
def _silent() -> Any:
    """Silence progress bars and messages, as stdout is for rows."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


#: The peers by name.
PEERS: dict[str, Callable[[Checkpoints], Floats]] = {"traker": traker, "dattri": dattri}
