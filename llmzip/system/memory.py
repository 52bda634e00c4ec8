"""How much memory is free, and running out of it as an error of ours; must not know what the memory is for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from ..errors import ResourceError


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be had on a device without swapping, or None if the system does not tell.

    Args:
        device: cpu or cuda.
    """
    if device.type == "cuda":
        # What torch keeps for later allocations is as good as free.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    known = [size for size in (_available_bytes(), _group_bytes()) if size is not None]
    return min(known, default=None)


def _available_bytes() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _group_bytes() -> int | None:
    """What a container's limit leaves (cgroup version 2)."""
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = int(file.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            return max(0, limit - int(file.read()))
    return None


@contextlib.contextmanager
def allocations_checked() -> Iterator[None]:
    """Turns failed allocations of torch and numpy into a ResourceError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is the first, and CPUs have none of their own
        if isinstance(error, MemoryError) or "alloc" in str(error) or "out of memory" in str(error):
            raise ResourceError("not enough memory for the model; fewer rows need less (levels -7 to -9)") from None
        raise
