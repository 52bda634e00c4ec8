"""What engines compute with, as their callers see it: arrays of a kind that the engine knows, on a named device."""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of an engine: numpy's where compiled kernels compute, else a tensor of torch on the engine's device.

Callers may take its length and shape, slice and reshape it, and index it by numpy arrays of booleans or of places. To
its values there is one way: the engine's readout.
"""

HOST = "cpu"
"""The device that is the processor itself."""
