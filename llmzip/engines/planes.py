"""Decides whether a model gets one or two int8 planes of activations; must not know text or files.

A second plane doubles the time of the matrix products. What it saves depends on the model: some have a few activations
that are a hundred times larger than the others, and lose several per cent with one plane; most lose a thousandth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .exact import ExactEngine

if TYPE_CHECKING:
    from ..models.model import ExactModel
    from .torch_arrays import TensorModel

_MAX_MASSES = 1 << 22
"""Masses that are computed at once: those of all tokens of a large vocabulary would take gigabytes."""

SECOND_PLANE_FROM = 1.002
"""Ratio of the code lengths with one plane and with two above which a model gets two."""


def code_bits(engine: ExactEngine, inputs: np.ndarray) -> float:
    """Computes the code length of a row in bits, with the frequencies of docs/numerics.md section 8 before rounding.

    Args:
        engine: the model's.
        inputs: (T + 1,) int64, the start token first.
    """
    inputs = np.asarray(inputs)
    hidden, targets = engine.forward(inputs[None, :-1])[0], inputs[1:]
    frequencies = engine.readout().frequencies
    vocab_size, bits = engine.vocab_size, 0.0
    reserve = vocab_size / (1 << 24)
    size = max(1, _MAX_MASSES // vocab_size)
    for begin in range(0, len(targets), size):
        masses = engine.masses(hidden[begin : begin + size])
        mass, total = frequencies.mass_and_total(masses, targets[begin : begin + size])
        share = mass / total * (1 - reserve) + 2.0**-24
        if engine.floor_bits:
            share = (mass + 1) / (total + vocab_size)
        bits -= float(np.log2(share).sum())
    return bits


def choose(model: ExactModel, rows: list[np.ndarray], device: str, *, byte_tokens: int = 0) -> ExactModel:
    """Returns the model with the number of planes that suits these rows; one plane if there are no rows.

    Args:
        model: with any number of planes; the weights are the same.
        rows: (T + 1,) int64 each, the start token first, T at most the context.
        device: to run on; all give the same result.
        byte_tokens: as for the engine.
    """

    if not rows:
        return model.with_planes(1)

    placed: ExactModel | TensorModel = model
    bits = []
    for number in (1, 2):
        engine = ExactEngine(placed.with_planes(number), device, byte_tokens=byte_tokens)
        bits.append(sum(code_bits(engine, row) for row in rows))
        placed = engine.model  # the second engine moves no weights
        del engine
    return model.with_planes(2 if bits[0] > SECOND_PLANE_FROM * bits[1] else 1)
