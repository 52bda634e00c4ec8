"""The exact engine: an integer model on one device, by the fastest forward pass that gives its bits.

Must not know text, files, frames or the coder. Shapes: B rows, T new tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError
from ..system import forks, threads
from .arrays import HOST, Array
from .base import Readout
from .byte_tokens import as_inputs
from .compiled import CompiledRows
from .cpu import forward as cpu
from .cpu.frequencies import CpuFrequencies
from .cpu.lanes import CpuRows, Limits
from .forward import Forward
from .frequencies import TOTAL_BITS
from .gpu import support
from .kv_cache import LayerCaches
from .operands import Operands
from .readout import HostReadout, readout

if TYPE_CHECKING:
    from ..format.plan import Rows
    from ..models.model import ExactModel
    from .torch_arrays import TensorModel

TORCH = "torch"
"""Name of the forward pass in plain torch."""


class ExactEngine:
    """Runs an ExactModel on one device. Threads may share it: it takes their calls one by one where it must.

    The compiled kernels of CPUs are tried first, and need no torch; torch is imported where it computes.

    Args:
        model: with its weights anywhere.
        device: to run on: "cpu", "cuda" or "cuda:N".
        batch_tokens: tokens that one prefill call should hold; None for what suits the model and the device.
        compiled: whether kernels may compute; plain torch gives the same bits.
        byte_tokens: tokens of single bytes after the model's own; `vocab_size` includes them.

    Attributes:
        model: with its weights where the forward pass reads them.
        device: as given, as a string.
        forward_pass: what computes.
        kernels_text: what computes, and why not something faster.
        is_slower: whether plain torch computes because kernels that were asked for cannot.
    """

    stepwise = False

    def __init__(
        self,
        model: ExactModel | TensorModel,
        device: object = HOST,
        batch_tokens: int | None = None,
        compiled: bool = True,
        *,
        byte_tokens: int = 0,
    ) -> None:
        self.device = str(device)
        # Two callers may share an engine, and its tables and kernels may change while it runs.
        self._lock = forks.Lock()
        config = model.config
        self._byte_tokens = byte_tokens
        self.vocab_size = config.vocab_size + byte_tokens
        self.floor_bits = config.floor_bits
        self.context = config.context
        self.start_token = config.start_token
        self.model: ExactModel | TensorModel
        self.operands: Operands
        self.forward_pass: Forward[Any]
        self.model, self.operands, self.forward_pass, reason = _chosen(model, self.device, compiled)
        self.is_slower = compiled and self.forward_pass.name == TORCH
        self.kernels_text = self.forward_pass.name + reason
        self.batch_tokens = batch_tokens or max(self.context, 1024, self.forward_pass.batch_tokens())

    @property
    def num_parameters(self) -> int:
        """Number of weights, as `ExactModel.num_parameters`."""
        return self.model.num_parameters

    @property
    def weights_bytes(self) -> int:
        """Size of the weights in memory, in bytes."""
        return self.model.weights_bytes

    def flops_per_token(self, length: int) -> int | None:
        """Returns the operations of one token's forward pass, averaged over a sequence of `length` tokens."""
        return self.model.config.flops_per_token(length)

    @property
    def callers(self) -> int:
        """Threads that may use it at once, as `Engine.callers`."""
        return threads.count() if self.forward_pass.is_concurrent else 1

    def new_cache(self, rows: int, chunk: int, positions: int) -> LayerCaches[Any]:
        """Returns an empty cache, as `Engine.new_cache`."""
        cache: LayerCaches[Any] = self.forward_pass.new_cache(rows, self._slots(chunk, positions))
        return cache

    def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
        """Estimates the memory of a cache and of one step of all rows with its masses and tables, in bytes."""
        config = self.model.config
        cache = self.forward_pass.cache_bytes(self._slots(chunk, positions))
        step = 4 * (8 * config.hidden_size + 8 * config.mlp_size + 4 * config.num_heads * config.head_dim)
        return rows * (cache + step + 12 * self.vocab_size)

    def _slots(self, chunk: int, positions: int) -> list[int]:
        """Returns how many positions each layer keeps; a window's has some room, so that its keys rarely move."""
        longest = min(self.context, positions)
        return [
            min(longest, window - 1 + max(chunk, window // 8, 16)) if window else longest
            for window in self.model.config.windows
        ]

    def forward(self, ids: np.ndarray, cache: LayerCaches[Any] | None = None) -> Array:
        """Computes final hidden states, as `Engine.forward`.

        Raises:
            EngineError: the context is too short for the new tokens.
        """
        self._extend(ids.shape[1] + (cache.length if cache is not None else 0))
        if self._byte_tokens:
            ids = as_inputs(ids, self.model.config.vocab_size, self.start_token)
        with self._turn():
            return self.forward_pass.forward(ids, cache)

    def _extend(self, positions: int) -> None:
        """Makes the operands reach to a position."""
        with self._lock:
            if positions > self.context:
                raise EngineError(f"{positions} positions exceed the model's context of {self.context}")
            self.operands.extend(positions)

    @property
    def is_compiled(self) -> bool:
        """Whether it has compiled rows, as `Engine.is_compiled`."""
        return isinstance(self.forward_pass, cpu.CpuForward)

    def compiled_rows(self, cache: LayerCaches[Any], inputs: np.ndarray, rows: Rows, skipped: int) -> CompiledRows:
        """Returns rows that go through the model in compiled code, as `Engine.compiled_rows`."""
        if not isinstance(self.forward_pass, cpu.CpuForward) or not isinstance(cache, cpu.CpuCache):
            raise TypeError(f"the forward pass by {self.forward_pass.name} has no compiled rows")
        limits = Limits(self.vocab_size, self.start_token, self.context, self._extend)
        return CpuRows(self.forward_pass, cache, inputs, rows, skipped, limits)

    def readout(self, total_bits: int = TOTAL_BITS) -> Readout:
        """Returns a new readout, as `Engine.readout`."""
        if isinstance(self.forward_pass, cpu.CpuForward):
            library = self.forward_pass.library
            return HostReadout(CpuFrequencies(library, self.vocab_size, total_bits, self.floor_bits))
        return readout(self.vocab_size, self.device, self.floor_bits, total_bits)

    def masses(self, hidden: Array) -> Array:
        """Computes masses, as `Engine.masses`."""
        with self._turn():
            return self.forward_pass.masses(hidden, self._byte_tokens)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Lets in one thread at a time, and lets a fork wait for it, unless the forward pass needs neither."""
        if self.forward_pass.is_concurrent:
            yield
        else:
            with self._lock, forks.whole:  # libraries of torch have locks of their own
                yield


def _chosen(
    model: ExactModel | TensorModel, device: str, compiled: bool
) -> tuple[ExactModel | TensorModel, Operands, Forward[Any], str]:
    """Chooses what computes a model.

    Returns:
        the model and its operands where the forward pass reads them; the forward pass; and why it is not a faster one,
        as an end for a message.
    """
    reason = ""
    if compiled and device == HOST and not support.interpreted():
        in_memory: ExactModel = model  # type: ignore[assignment] # tensors in memory are arrays, too
        operands = Operands.of(in_memory)
        kernels, why = cpu.build(in_memory, operands)
        if kernels is not None:
            return in_memory, operands, kernels, ""
        reason = f", without the compiled kernels ({why})"
    from . import torch_passes

    chosen = torch_passes.choose(model, device, compiled)
    return chosen.model, chosen.operands, chosen.forward_pass, reason + chosen.reason
