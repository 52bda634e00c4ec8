"""Chooses the Triton kernels for a model, if they are available, know all of it and give the bits of plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...models.config import ExactConfig
from ...models.model import Feature
from ..forward import Forward, unsupported
from ..operands import Operands
from ..reference import TorchForward
from ..torch_arrays import TensorModel
from . import support
from .forward import GpuForward

_MAX_VALUES = 1 << 14
"""Values of a row that the kernels keep in registers as a whole: hidden and MLP sizes."""

_HEAD_DIMS = (32, 64, 128, 256)
"""Sizes of heads that fill whole tiles of the products."""

_SIZE_UNIT = 16
"""Hidden and MLP sizes are multiples of this number of values, as products of int8 on tensor cores need."""

_LACKING = frozenset(Feature)
"""Features that the kernels cannot compute: all that not every model has."""

_TRIAL_ROWS, _TRIAL_LENGTH = 3, 101
"""Rows and tokens of the trial: more tokens than a tile has rows, and no multiple of one."""

_trials: dict[tuple[str, ExactConfig], str] = {}
"""Results of `trial` by device and configuration, for the time of the process."""


def build(model: TensorModel, operands: Operands) -> tuple[GpuForward | None, str]:
    """Returns the Triton kernels with a model; or None and the reason.

    Args:
        model: on a CUDA device, or on the CPU where Triton interprets.
        operands: those of the model.
    """
    fits = _fits(model.config)
    reason = support.unavailable(model.device) or unsupported(model, _LACKING, has_fitting_sizes=fits)
    kernels, load_reason = support.load()
    if reason or kernels is None:
        return None, reason or load_reason
    forward = GpuForward(model, kernels, operands)
    if not support.interpreted():
        operands.extend(min(model.config.context, _TRIAL_LENGTH))
        reason = trial(forward, TorchForward(model, operands))
    return (None, reason) if reason else (forward, "")


def _fits(config: ExactConfig) -> bool:
    sizes = (config.hidden_size, config.mlp_size)
    return (
        all(size % _SIZE_UNIT == 0 and size <= _MAX_VALUES for size in sizes)
        and config.head_dim in _HEAD_DIMS
        and config.num_heads * config.head_dim <= _MAX_VALUES
    )


@torch.inference_mode()
def trial(kernels: GpuForward, plain: Forward[Any]) -> str:
    """Says why the kernels must not run a model; empty if they give the bits of plain torch for its shapes.

    Prefill of many tokens and of few, steps as they are recorded and replayed, masses: every kernel in every size of
    its tiles. A device and a configuration are tried once.

    Args:
        kernels: with the model; its rotary tables reach to the end of the trial.
        plain: plain torch with the same model.
    """
    key = (str(kernels.device), kernels.config)
    if key not in _trials:
        config, length = kernels.config, min(kernels.config.context, _TRIAL_LENGTH)
        n = np.arange(_TRIAL_ROWS * length, dtype=np.int64)
        ids = ((n * n * 40503 + n * 2654435761) >> 9) % config.vocab_size
        ids = ids.reshape(_TRIAL_ROWS, length)
        expected = plain.forward(ids, None)
        flat = expected.reshape(_TRIAL_ROWS * length, -1)
        masses = plain.masses(flat)
        try:
            cache = kernels.new_cache(_TRIAL_ROWS, [length] * config.num_layers)
            sizes = [1] * 5 + [8] if length > 13 else [1]
            steps = [kernels.forward(part, cache) for part in np.split(ids, np.cumsum(sizes), 1)]
            is_same = (
                torch.equal(kernels.forward(ids, None), expected)
                and torch.equal(torch.cat(steps, 1), expected)
                and all(torch.equal(kernels.masses(flat[:rows]), masses[:rows]) for rows in (1, 40, len(flat)))
            )
            _trials[key] = "" if is_same else "they failed their self-test"
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler that fails does so in many ways
            _trials[key] = f"they failed: {support.one_line(error)}"
    return _trials[key]
