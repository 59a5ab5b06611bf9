"""PEFT adapters saved in a separate folder: find their base model, and merge them into its weights."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from raysp.errors import UserError
from raysp.models.identity import file_hash, folder_hash

CONFIG = "adapter_config.json"
#: Fields of an adapter's configuration that record the location of its base model, or how it was trained.
OF_NO_EFFECT = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "task_type")
REMEDY = "name the base model that it was trained on in its adapter_config.json, or merge it with PEFT and give the saved model"


def has_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / CONFIG).is_file()


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter but no model."""
    return has_adapter(folder) and not (folder / "config.json").is_file()


def base_name(folder: Path, name: str) -> str:
    """The model that the adapter in a folder belongs to, as its configuration names it. UserError (about the model `name`) for a configuration without it."""
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("model", name, f"has an {CONFIG} that cannot be used ({error})", "save the adapter again with PEFT") from None
    if not isinstance(found, str) or not found:
        raise UserError("model", name, "is an adapter that does not name its base model", f"write base_model_name_or_path into its {CONFIG}")
    return found


def base_path(folder: Path, base: str) -> Path | None:
    """The local folder that the name of an adapter's base model stands for, where the adapter is a local folder itself; None for a name on the hub."""
    found = Path(base).expanduser()
    return found.absolute() if folder.is_absolute() and found.exists() else None


def local_hash(name: str) -> str | None:
    """The hash of a local model, GGUF file or adapter (with its base model, if that is local too), given by an absolute path; None for names on the hub."""
    path = Path(name).expanduser()
    if not path.is_absolute() or not path.exists():
        return None
    base = base_path(path, base_name(path, name)) if path.is_dir() and is_adapter(path) else None
    hashes = [file_hash(each) if each.is_file() else folder_hash(each) for each in (path, base) if each is not None]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def merged(model: Any, folder: Path, name: str, *, allow_pickle: bool) -> Any:
    """The base model with the adapter in a folder merged into its weights. UserError (about the model `name`) for an adapter that does not fit it."""
    from peft import PeftModel

    if not allow_pickle and not (folder / "adapter_model.safetensors").is_file():
        raise UserError("model", name, "is an adapter without safetensors weights", "allow_pickle reads adapter_model.bin if you trust its author")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that are missing, which are reported below
            adapted = PeftModel.from_pretrained(model, str(folder))
            read = adapted.load_adapter(str(folder), "default")  # again, as only this returns which weights did not fit
        _check_fits(read.missing_keys, read.unexpected_keys)
        return adapted.merge_and_unload(safe_merge=True)
    except (ValueError, OSError, KeyError, TypeError, RuntimeError, NotImplementedError, SafetensorError) as error:
        from raysp.models.memory import is_out_of_memory  # here, as it loads torch: whoever asks for a hash does not need that

        if is_out_of_memory(error):
            raise
        raise UserError("model", name, f"is an adapter that cannot be merged into its base model ({_reason(error)})", REMEDY) from None


def _check_fits(lacking: Sequence[str], unused: Sequence[str]) -> None:
    """ValueError if an adapter lacks weights for modules of the model, or has weights for modules that the model lacks, as those of a deeper model."""
    if unused:
        raise ValueError(f"{len(unused)} of its weights belong to modules that the base model does not have, such as {unused[0]}")
    if lacking:
        raise ValueError(f"it lacks {len(lacking)} weights for modules of the base model, such as {lacking[0]}")


def _reason(error: BaseException) -> str:
    """What is wrong, in one line: of the lines in which PyTorch lists every weight of another shape, the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line.strip() for line in lines if "size mismatch" in line), lines[0])[:200]


def merged_hash(base: str, folder: Path) -> str:
    """A joint hash of a base model (given its own hash) and the adapter in a folder."""
    described = {key: value for key, value in json.loads((folder / CONFIG).read_text(encoding="utf-8")).items() if key not in OF_NO_EFFECT}
    weights = sorted(f"{path.name} {file_hash(path)}" for pattern in ("adapter_model*.safetensors", "adapter_model*.bin") for path in folder.glob(pattern))
    return hashlib.sha256("\n".join([base, *weights, json.dumps(described, sort_keys=True)]).encode()).hexdigest()
