"""How much memory is free for a cache; must not know what it is for."""

from __future__ import annotations

import os

import torch


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be had on a device without swapping, or None if the system does not tell.

    Args:
        device: cpu or cuda.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None
