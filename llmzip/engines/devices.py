"""Which device a name stands for. Imports torch only where there may be a CUDA device, or one is asked for."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from ..errors import EngineError
from ..system import forks, torchparts
from .arrays import HOST

_DRIVERS = {"win32": ("nvcuda.dll",)}
"""Names of the driver's library by platform, without which CUDA's own libraries find no device."""

_AMD_DEVICE = Path("/dev/kfd")
"""What every device of AMD needs that a torch for these calls cuda."""

_HIDDEN = ("", "-1")
"""Values of CUDA_VISIBLE_DEVICES that leave no device: only those before the first invalid number are seen."""


def find(name: str) -> str:
    """Returns the device that a setting stands for: auto is CUDA if there is a usable one.

    Args:
        name: auto, cpu, cuda or cuda:N.

    Raises:
        EngineError: this machine has no such device.
    """
    if name == HOST or (name == "auto" and not may_have_cuda()):
        return HOST
    import torch

    inherited: bool = getattr(torch.cuda, "_is_in_bad_fork", lambda: False)()  # torch's own name for such children
    if name == "auto":
        if inherited or not torch.cuda.is_available():
            return HOST
        torchparts.complete()  # compilers for GPUs may want all of torch
        return "cuda"
    if inherited:
        raise EngineError(
            f"device {name}: CUDA cannot be used in a child of a process that has used it; start the child by "
            "multiprocessing's method spawn, or use the device cpu: the bits are the same"
        )
    if not torch.cuda.is_available():
        from .gpu import devices

        raise EngineError(
            f"device {name}: torch finds no CUDA device here ({devices.missing()}); use --device cpu, the bits are "
            "the same"
        )
    if name != "cuda" and int(name[5:]) >= torch.cuda.device_count():
        raise EngineError(f"device {name}: there are only {torch.cuda.device_count()} CUDA devices")
    torchparts.complete()
    return name


def all_of(name: str) -> list[str]:
    """Returns the devices that a name stands for; "cuda" stands for all CUDA devices.

    Args:
        name: what `find` returns: cpu, cuda or cuda:N.
    """
    if name != "cuda":
        return [name]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def may_have_cuda() -> bool:
    """Returns whether torch may find a CUDA device, without importing it; where it is imported, it should be asked.

    False is sound: CUDA reaches a device only through the driver's library, which comes with the driver and not with
    torch, and is looked for by the same name and in the same places as here. A machine without a driver, a container
    that was not given one, and CUDA_VISIBLE_DEVICES without a device have none. (A torch for AMD, which calls its
    devices cuda too, needs the kernel's /dev/kfd.) True only means that torch must say.
    """
    if "torch" in sys.modules:
        return True
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in _HIDDEN:
        return False
    return _AMD_DEVICE.exists() or any(map(_can_load, _DRIVERS.get(sys.platform, ("libcuda.so.1", "libcuda.so"))))


def _can_load(library: str) -> bool:
    try:
        with forks.whole:  # the system's loader holds a lock
            ctypes.CDLL(library)
    except OSError:
        return False
    return True
