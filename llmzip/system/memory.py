"""Free memory, and failed allocations as a ResourceError. Must not know what the memory is for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..errors import ResourceError


def free_bytes(device: str) -> int | None:
    """Returns the bytes of memory available on a device without swapping; None if the system does not report them.

    Args:
        device: "cpu", "cuda" or "cuda:N"; only of CUDA devices torch is asked.
    """
    if device != "cpu":
        import torch

        # Memory that torch keeps for later allocations is as good as free.
        kept_bytes = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept_bytes
    limits = [num_bytes for num_bytes in (_system_bytes(), _cgroup_bytes()) if num_bytes is not None]
    return min(limits, default=None)


def _system_bytes() -> int | None:
    """Returns what the whole machine has left; its size where it does not report that."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _cgroup_bytes() -> int | None:
    """Returns what the container's limit leaves (cgroup version 2)."""
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = int(file.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            return max(0, limit - int(file.read()))
    return None


@contextlib.contextmanager
def allocations_checked(message: str = "not enough memory") -> Iterator[None]:
    """Turns failed allocations of torch and numpy into a ResourceError.

    Args:
        message: the error's text, for callers that know what the memory is for and what needs less.
    """
    try:
        yield
    except (
        RuntimeError,
        MemoryError,
    ) as error:  # torch has a class of its own only on GPUs
        if isinstance(error, MemoryError) or "alloc" in str(error) or "out of memory" in str(error):
            raise ResourceError(message) from None
        raise
