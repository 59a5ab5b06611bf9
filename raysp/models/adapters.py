"""PEFT adapters saved in a separate folder: find their base model, and merge them into its weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

from raysp.errors import UserError
from raysp.models.identity import file_hash

CONFIG = "adapter_config.json"
#: Fields of an adapter's configuration that record the location of its base model, or how it was trained.
OF_NO_EFFECT = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "task_type")


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


def merged(model: Any, folder: Path, name: str, *, allow_pickle: bool) -> Any:
    """The base model with the adapter in a folder merged into its weights. UserError (about the model `name`) for an adapter that does not fit it."""
    from peft import PeftModel

    if not allow_pickle and not (folder / "adapter_model.safetensors").is_file():
        raise UserError("model", name, "is an adapter without safetensors weights", "allow_pickle reads adapter_model.bin if you trust its author")
    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    except (ValueError, OSError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            "model", name, f"is an adapter that cannot be merged into its base model ({first})", "merge it with PEFT, and give the saved model"
        ) from None


def merged_hash(base: str, folder: Path) -> str:
    """A joint hash of a base model (given its own hash) and the adapter in a folder."""
    described = {key: value for key, value in json.loads((folder / CONFIG).read_text(encoding="utf-8")).items() if key not in OF_NO_EFFECT}
    weights = sorted(f"{path.name} {file_hash(path)}" for pattern in ("adapter_model*.safetensors", "adapter_model*.bin") for path in folder.glob(pattern))
    return hashlib.sha256("\n".join([base, *weights, json.dumps(described, sort_keys=True)]).encode()).hexdigest()
