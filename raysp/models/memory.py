"""What running out of memory looks like on each device, and how to go on after it."""

import gc

import torch

from raysp.errors import DoesNotFitError

#: The last is what cuBLAS and cuDNN say, which take memory beside torch's.
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate", "status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out. On a CPU torch raises a plain RuntimeError whose text must be read."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | DoesNotFitError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def release(device: torch.device) -> None:
    """Give cached memory back before another try."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
