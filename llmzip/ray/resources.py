"""Threads and devices of a process that Ray may have started; Ray itself is never imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ..settings import EngineSettings


def engine_settings(device: str, threads: int | None) -> EngineSettings:
    """Returns where the model runs in this process.

    In a Ray worker, `auto` is the GPU that Ray assigned to it, or the CPU if it assigned none: Ray leaves all GPUs
    visible to workers that asked for none.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None for the CPUs that Ray assigned, and PyTorch's own number outside Ray or if Ray
            assigned none.

    Raises:
        SettingsError: the device is unknown or the number of threads is out of range.
    """
    assigned = assigned_resources()
    if assigned is not None:
        if device == "auto" and not assigned.get("GPU"):
            device = "cpu"
        if threads is None and assigned.get("CPU"):
            threads = max(1, int(assigned["CPU"]))
    return EngineSettings(device=device, threads=threads)


def assigned_resources() -> Mapping[str, float] | None:
    """Returns what Ray assigned to this worker, such as {"CPU": 2.0}; None in a process that is not a Ray worker."""
    ray = sys.modules.get("ray")  # in a worker, Ray has imported itself
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:  # the driver
        return None
    resources: Mapping[str, float] = context.get_assigned_resources()
    return resources
