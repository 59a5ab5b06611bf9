"""The identity of a model and its tokenizer, as hashes of everything that affects token ids or scores: two folders with equal content are one model.

Hashing gigabytes takes seconds, so the hashes of files are cached by path, size and modification time in `home()/hashes.json`.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysp.home import home

#: Fields of a configuration, at any depth, that record its origin or how the model is held in memory.
OF_NO_EFFECT = frozenset({"transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache", "_from_model_config"})
#: Options of a tokenizer that do not affect ids here: the location of its files, and truncation and padding, which raysp does itself.
NOT_IN_IDS = frozenset(
    {"name_or_path", "model_max_length", "padding_side", "truncation_side", "max_length", "stride", "truncation_strategy", "processor_class"}
)


#: Ends of the names of files that may be loaded from a model folder.
IN_FOLDERS = frozenset({".safetensors", ".bin", ".json", ".model", ".txt", ".jinja", ".py"})


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content in hex, read in pieces and cached until the file changes."""
    resolved = path.resolve()
    status = resolved.stat()
    key, stamp = str(resolved), [status.st_size, status.st_mtime_ns]
    known = _read().get(key)
    if known and known[:2] == stamp:
        return str(known[2])
    with resolved.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _remember(key, [*stamp, digest])
    return digest


def model_hash(weights: Sequence[Path], config: Path, *, code: Sequence[Path] = (), generation: Any = None) -> str:
    """The identity of a model: its weights, its configuration, its own code if that is run, and its generation configuration, which determines where answers end."""
    lines = sorted(f"{path.name} {file_hash(path)}" for path in (*weights, *code))
    described = [json.loads(config.read_text(encoding="utf-8")), {} if generation is None else generation.to_diff_dict()]
    return _hash([lines, *(_effective(each) for each in described)])


def tokenizer_hash(tokenizer: Any) -> str:
    """The identity of a tokenizer as loaded, including the effect of its files and settings.

    A fast tokenizer is identified by its pipeline of normaliser, pre-tokeniser, model and post-processor, which reflects the settings; a slow one by its vocabulary and
    the files that it was read from. Class, settings, special tokens and chat template are included as well.
    """
    if tokenizer.is_fast:
        pipeline = json.loads(tokenizer.backend_tokenizer.to_str())
        table = {name: part for name, part in pipeline.items() if name not in ("truncation", "padding")}
    else:
        files = (getattr(tokenizer, name, None) for name in tokenizer.vocab_files_names)
        table = [tokenizer.get_vocab(), *(file_hash(Path(path)) for path in files if isinstance(path, str) and Path(path).is_file())]
    paths = {*tokenizer.vocab_files_names, "special_tokens_map_file", "tokenizer_file"}
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if name not in NOT_IN_IDS | OF_NO_EFFECT | paths}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return _hash([type(tokenizer).__name__, table, settings, special, tokenizer.chat_template, tokenizer("a")["input_ids"]])


def folder_hash(folder: Path) -> str:
    """The identity of a model folder as it lies on disk: of every file that may be loaded, by its name. Pickled weights beside others are not."""
    files = [path for path in folder.iterdir() if path.suffix in IN_FOLDERS and path.is_file()]
    safe = any(path.suffix == ".safetensors" for path in files)
    return _hash(sorted(f"{path.name} {file_hash(path)}" for path in files if not (safe and path.suffix == ".bin")))


def folder_stamp(name: str) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and modification times of the files in a local folder (none for other models): rewriting a folder changes its stamp."""
    folder = Path(name).expanduser()
    with contextlib.suppress(OSError):
        return tuple(sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir() if file.is_file()))
    return ()


def _effective(described: Any) -> Any:
    """A configuration without the fields that have no effect."""
    if isinstance(described, Mapping):
        return {name: _effective(value) for name, value in described.items() if name not in OF_NO_EFFECT}
    return [_effective(value) for value in described] if isinstance(described, list) else described


def _hash(described: Any) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _memory() -> Path:
    return home() / "hashes.json"


def _read() -> dict[str, list[int | str]]:
    try:
        return json.loads(_memory().read_text())
    except (OSError, ValueError):  # absent, unreadable or damaged: it is only a cache
        return {}


def _remember(key: str, entry: list[int | str]) -> None:
    # Concurrent processes may lose each other's entries, which are then computed again.
    with contextlib.suppress(OSError):
        home().mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".hashes-", dir=home())
        with os.fdopen(handle, "w") as file:
            json.dump({**_read(), key: entry}, file)
        Path(name).replace(_memory())
