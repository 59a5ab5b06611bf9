"""The free memory of a device, and recognising out-of-memory errors."""

import contextlib
import gc
from pathlib import Path

import torch

from raysp.errors import DoesNotFitError

#: Phrases in torch's errors on each device; the last is from cuBLAS and cuDNN, which allocate outside torch.
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate", "status_alloc_failed")
#: Where Linux reports the machine's memory.
MEMINFO = Path("/proc/meminfo")
#: Where it reports the limit, use and statistics of the process's control group: version 2, then version 1.
CGROUPS = (
    tuple(Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current", "memory.stat")),
    tuple(Path("/sys/fs/cgroup/memory") / name for name in ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")),
)
#: Statistics of a control group that count files read through the page cache, which the kernel drops when memory is wanted.
_CACHE = {"active_file", "inactive_file"}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out. On a CPU torch raises a plain RuntimeError, so its text decides."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | DoesNotFitError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def release(device: torch.device) -> None:
    """Return cached memory to the device before another attempt."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def available_bytes(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device without swapping; None if the system does not report them.

    On a CPU the smaller of what the machine has available and what the process's control group allows; the page cache counts as available.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    found = [left for left in (_machine(), *(_control_group(*files) for files in CGROUPS)) if left is not None]
    return max(min(found), 0) if found else None


def _machine() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in MEMINFO.read_text().splitlines():
            name, _, size = line.partition(":")
            if name == "MemAvailable":
                return int(size.split()[0]) * 1024
    return None


def _control_group(limit: Path, used: Path, statistics: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # ValueError: without a limit the file contains `max`
        cache = sum(int(size) for name, size in map(str.split, statistics.read_text().splitlines()) if name in _CACHE)
        return int(limit.read_text()) - int(used.read_text()) + cache
    return None
