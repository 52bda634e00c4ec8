"""Chooses a forward pass that torch runs: the Triton kernels of a CUDA device, or plain torch. Imports torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..models.model import ExactModel
from .arrays import HOST
from .forward import Forward
from .gpu import support
from .operands import Operands
from .reference import TorchForward
from .torch_arrays import TensorModel, on_device, operands_of


class Chosen(NamedTuple):
    """A forward pass with what it computes.

    Attributes:
        model: where the forward pass reads it.
        operands: those of the model.
        forward_pass: what computes.
        reason: why it is not a faster one, as an end for a message; empty if it is the fastest that was asked for.
    """

    model: TensorModel
    operands: Operands
    forward_pass: Forward[Any]
    reason: str = ""


def choose(model: ExactModel | TensorModel, device: str, compiled: bool) -> Chosen:
    """Returns the fastest forward pass of torch for a model.

    Args:
        model: with its weights anywhere.
        device: to run on.
        compiled: whether kernels may compute; plain torch gives the same bits.
    """
    placed = on_device(model, torch.device(device))
    operands, reason = operands_of(placed), ""
    if compiled and (device != HOST or support.interpreted()):
        from .gpu import choice

        kernels, why = choice.build(placed, operands)
        if kernels is not None:
            return Chosen(placed, operands, kernels)
        reason = f", without the Triton kernels ({why})" if why else ""
    return Chosen(placed, operands, TorchForward(placed, operands), reason)
