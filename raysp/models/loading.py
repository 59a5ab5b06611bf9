"""From a model's name to its weights, tokenizer, device and dtype. Independent of masks, prompts and scoring."""

import contextlib
import json
import math
import socket
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from raysp.errors import DoesNotFitError, UserError
from raysp.models import adapters, embedded
from raysp.models.identity import model_hash, tokenizer_hash
from raysp.models.memory import is_out_of_memory
from raysp.specs.lenses import Dtype, ModelOptions, forced_dtype, with_model

Task = Literal["causal", "classifier"]
#: A change of a logit by a later token, relative to the largest logit, that counts as rounding.
CAUSAL = 1e-3
#: Kinds of devices that models run on.
DEVICES = ("cpu", "cuda", "mps")
#: Where Linux describes the processor.
CPU_INFO = Path("/proc/cpuinfo")
_WEIGHTS = ("*.safetensors", "*.bin")
#: Names that safetensors gives to dtypes that are converted when they are loaded.
_FLOATS = {"F64", "F32", "F16", "BF16"}
_NO_MODEL = "give the name of the embedded model, the id of a model on the hub, or a local folder"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer.

    `weights` and `tokens` are the identities of the model and of the tokenizer, see `identity`; `device` is the device of its inputs.
    """

    model: Any
    tokenizer: Any
    task: Task
    weights: str
    tokens: str
    dtype: torch.dtype
    device: torch.device


def load(options: ModelOptions) -> LoadedModel:
    """Load the model named in the options. UserError if there is no such model, if loading it requires a flag that was not given, or if it does not fit into memory."""
    folder, adapter = _base(options)
    weights = _weight_files(folder, options)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    trust = _trust(options)
    with quiet():
        task = _task(folder, options, trust)
        try:
            model = _read_weights(folder, options, task, dtype=dtype, **trust, **_placement(options, weights, dtype, device))
            if adapter is not None:
                model = adapters.merged(model, adapter, options.model, allow_pickle=options.allow_pickle)
            if not hasattr(model, "hf_device_map"):
                model.to(device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise does_not_fit(options, device) from None
        if task == "causal" and _looks_ahead(model):
            raise _not_causal(options, type(model).__name__)
        read = _tokenizer_folder(folder, adapter)
        tokenizer = _read_tokenizer(read, options, trust)
    model.eval().requires_grad_(requires_grad=False)
    inputs_at = model.get_input_embeddings().weight.device
    identity = model_hash(
        weights,
        folder / "config.json",
        code=sorted(folder.glob("*.py")) if options.allow_remote_code else (),
        generation=getattr(model, "generation_config", None),
    )
    if adapters.has_adapter(adapter or folder):  # transformers itself loads one that lies beside a model
        identity = adapters.merged_hash(identity, adapter or folder)
    return LoadedModel(model, tokenizer, task, identity, tokenizer_hash(tokenizer), dtype, inputs_at)


def load_tokenizer(options: ModelOptions) -> Any:
    """The tokenizer of the model named in the options, without downloading its weights. UserError as `load`."""
    check_hash(options)
    folder = _tokenizer_folder(*_base(options, weights=False))
    with quiet():
        return _read_tokenizer(folder, options, _trust(options))


def following(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that follows another, without special tokens: the ids that it has after a line break.

    Many tokenizers put a blank before a text, which must not appear within a longer text.
    """
    alone, line, both = ([*tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]] for piece in (text, "\n", f"\n{text}"))
    return both[len(line) :] if line and both[: len(line)] == line else alone


def _trust(options: ModelOptions) -> dict[str, Any]:
    return {"trust_remote_code": options.allow_remote_code, "local_files_only": True}


def locate(options: ModelOptions, *, weights: bool = True) -> Path:
    """The folder of a model, downloaded from the hub (with or without weights) or dequantised if necessary. UserError if there is no such model."""
    name = options.model
    if name == embedded.NAME:
        gguf = embedded.embedded_gguf()
        if gguf is not None:
            with quiet():
                return embedded.dequantised(gguf, embedded.NAME)
        name = embedded.HUB_ID
    path = Path(name).expanduser()
    # A relative name is one on the hub: specs are resolved where they are asked, and a folder of this process must not come in between.
    if path.is_absolute() and path.is_file() and path.suffix == ".gguf":
        with quiet():
            return embedded.dequantised(path, path.stem)
    return path if path.is_absolute() and path.is_dir() else _fetch(name, options, weights=weights)


def check_hash(options: ModelOptions) -> None:
    """UserError unless the local model that the options name is the one whose hash they state, if they state one."""
    if options.model_hash is None:
        return
    here = adapters.local_hash(options.model)
    where = f"({socket.gethostname()})"
    if here is None:
        raise UserError("model", options.model, f"is not there on this node {where}", "put the folder where every node sees it, under the same path")
    if here != options.model_hash:
        problem = f"is another model on this node {where} than where it was asked about, or has changed since"
        raise UserError("model", options.model, problem, "copy the folder to every node, or ask again")


def _base(options: ModelOptions, *, weights: bool = True) -> tuple[Path, Path | None]:
    """The folder of the model that the options name and, if the name is that of an adapter, the adapter's folder. UserError as `locate`."""
    folder = locate(options, weights=weights)
    if not adapters.is_adapter(folder):
        return folder, None
    base = adapters.base_name(folder, options.model)
    local = adapters.base_path(Path(options.model).expanduser(), base)
    if local is None and Path(base).expanduser().is_absolute():
        raise UserError("model", options.model, f"is an adapter of {base}, which is not a folder here", "make its base model available")
    try:
        found = locate(with_model(options, str(local or base)), weights=weights)
    except UserError as error:
        raise UserError("model", options.model, f"is an adapter of {base}, which {error.problem}", "make its base model available") from None
    if adapters.is_adapter(found):
        raise UserError("model", options.model, f"is an adapter of {base}, which is an adapter too", "merge the latter into its base model with PEFT")
    return found, folder


def _tokenizer_folder(base: Path, adapter: Path | None) -> Path:
    """The folder of the tokenizer: an adapter's own tokenizer takes precedence over that of its base model."""
    return adapter if adapter is not None and (adapter / "tokenizer_config.json").is_file() else base


def _fetch(name: str, options: ModelOptions, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = ["*.json", "*.model", "*.txt", "*.jinja"] + ["*.py"] * options.allow_remote_code
    patterns += (["*.safetensors"] + ["*.bin"] * options.allow_pickle) * weights
    try:
        # Subfolders of a repository hold other formats of the same weights.
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except HFValidationError:
        raise UserError("model", options.model, "is neither a local folder nor a valid model id", _NO_MODEL) from None
    except HfHubHTTPError:
        raise UserError("model", options.model, "is neither a local folder nor a readable model on the hub", _NO_MODEL) from None
    except OSError:
        raise UserError("model", options.model, "is not a local folder, and the hub cannot be reached", _NO_MODEL) from None


def _weight_files(folder: Path, options: ModelOptions) -> list[Path]:
    if not (folder / "config.json").is_file():
        raise UserError("model", options.model, "holds neither config.json nor adapter_config.json", _NO_MODEL)
    safe, pickled = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    if safe:
        return safe
    if pickled and options.allow_pickle:
        return pickled
    if pickled:
        raise UserError("model", options.model, "holds only pickled weights, which can run code", "set allow_pickle to load them if you trust their author")
    raise UserError("model", options.model, "holds no safetensors weights", _NO_MODEL)


def _task(folder: Path, options: ModelOptions, trust: dict[str, Any]) -> Task:
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(str(folder), **trust)
    except (ValueError, OSError, KeyError) as error:
        raise UserError("model", options.model, f"has a configuration that cannot be used ({_first_line(error)})", _code_hint(error)) from None
    names = config.architectures or []
    if masked := next((name for name in names if name.endswith("ForMaskedLM")), None):
        raise _not_causal(options, masked)
    if any(name.endswith("ForSequenceClassification") for name in names):
        return "classifier"
    return "causal"


def _not_causal(options: ModelOptions, name: str) -> UserError:
    problem = f"is not a causal language model: {name} also reads the tokens after the one that it predicts"
    return UserError("model", options.model, problem, "give a causal language model or a sequence classifier")


def _looks_ahead(model: Any) -> bool:
    """Whether the last of two tokens affects a model's prediction at the first; False for a model that cannot run on two tokens."""
    ids = torch.tensor([[1, 2], [1, 3]], device=model.get_input_embeddings().weight.device)
    try:
        with torch.no_grad():
            logits = torch.cat([model(input_ids=each[None]).logits[:, 0] for each in ids]).double()
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return False
    return float((logits[0] - logits[1]).abs().max()) > CAUSAL * (1 + float(logits.abs().max()))


def _read_weights(folder: Path, options: ModelOptions, task: Task, **how: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if task == "causal" else AutoModelForSequenceClassification
    try:
        found: Any = kind.from_pretrained(str(folder), use_safetensors=not options.allow_pickle or None, output_loading_info=True, **how)
    except (ValueError, OSError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        problem = f"cannot be loaded as a causal language model or a sequence classifier ({_first_line(error)})"
        raise UserError("model", options.model, problem, _code_hint(error)) from None
    model, told = found
    # Missing weights would be initialised at random: a different model in every process, under the same name.
    lacking = sorted({*told["missing_keys"], *(str(key[0]) for key in told["mismatched_keys"])})
    if lacking:
        problem = f"lacks {len(lacking)} weights of a causal language model or a sequence classifier ({lacking[0]}{', …' if lacking[1:] else ''})"
        raise UserError("model", options.model, problem, "give a checkpoint that was saved with its head")
    return model


def _read_tokenizer(folder: Path, options: ModelOptions, trust: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), **trust)
    except (ValueError, OSError, KeyError) as error:
        raise UserError("model", options.model, f"has no usable tokenizer ({_first_line(error)})", "save the tokenizer into the same folder") from None


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` is the first GPU if there is one. UserError for a device that is not available."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError("device", name, f"is not available ({_first_line(error)})", "use auto, cpu, cuda, cuda:N or mps") from None
    if device.type not in DEVICES:  # such as meta, which computes nothing
        raise UserError("device", name, "is not a device that models run on", "use auto, cpu, cuda, cuda:N or mps")
    return device


def choose_dtype(name: Dtype, device: torch.device) -> torch.dtype:
    """The dtype of that name; `auto` is what RAYSP_AUTO_DTYPE says, otherwise bfloat16 where the device computes in it and float32 elsewhere.

    Emulated bfloat16 is several times slower than float32. UserError where RAYSP_AUTO_DTYPE is not a dtype.
    """
    if name == "auto":
        name = forced_dtype() or ("bfloat16" if _computes_bfloat16(device) else "float32")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        flags = CPU_INFO.read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def required_bytes(options: ModelOptions) -> tuple[int, torch.device]:
    """Bytes that the weights which the options name take in memory, and the device that they go to. UserError as `load`."""
    device = choose_device(options.device)
    folder, _ = _base(options)
    _weight_files(folder, options)
    return checkpoint_bytes(folder, choose_dtype(options.dtype, device)), device


def does_not_fit(options: ModelOptions, device: torch.device) -> DoesNotFitError:
    """The error of a model that is larger than the memory of its device."""
    dtype = str(choose_dtype(options.dtype, device)).removeprefix("torch.")
    remedy = "use a smaller model, bfloat16, or a device with more memory" + (", or give each evaluator more GPUs (--gpus)" if device.type == "cuda" else "")
    return DoesNotFitError("model", options.model, f"does not fit into the memory of {device} in {dtype}", remedy)


def checkpoint_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Bytes that the weights in a model folder take in memory once they are loaded in `dtype`; integers, as in quantised weights, keep their size.

    Read from the headers of safetensors files, without the weights. Pickled weights are taken to be in the dtype of the configuration.
    """
    safe, pickled = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    if safe:
        return sum(_tensor_bytes(path, dtype) for path in safe)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    saved = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"), torch.float32)
    return sum(path.stat().st_size for path in pickled) * dtype.itemsize // saved.itemsize


def _tensor_bytes(path: Path, dtype: torch.dtype) -> int:
    """Of one safetensors file: an 8-byte length, a JSON header of that length with the dtype and shape of each tensor, the tensors."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            total += math.prod(entry["shape"]) * dtype.itemsize if entry["dtype"] in _FLOATS else stop - start
    return total


def _placement(options: ModelOptions, weights: list[Path], dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Spread a model over several GPUs if it does not fit into the free memory of the first. Files are assumed to hold 16-bit weights."""
    if options.device != "auto" or device.type != "cuda" or torch.cuda.device_count() < 2:
        return {}
    needed = sum(path.stat().st_size for path in weights) * (2 if dtype == torch.float32 else 1)
    free, _ = torch.cuda.mem_get_info(device)
    if needed < 0.8 * free or not _installed("accelerate"):
        return {}
    return {"device_map": "auto"}


def _installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _code_hint(error: BaseException) -> str:
    return "set allow_remote_code to run it if you trust its author" if "trust_remote_code" in str(error) else _NO_MODEL


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Within a `with` block, turn off the progress bars of transformers: raysp shows its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
