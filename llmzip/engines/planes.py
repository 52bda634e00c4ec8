"""One or two int8 planes of activations, by what a second one saves; must not know text or files.

A second plane doubles the time of the matrix products. What it saves depends on the model: some have a few activations
that are a hundred times the others, and lose several per cent with one plane; most lose a thousandth.
"""

from __future__ import annotations

import dataclasses

import torch

from ..models.model import ExactModel
from .exact import ExactEngine

_MOST_MASSES = 1 << 22

SECOND_PLANE_FROM = 1.002
"""A second plane is taken if the code length with one is this much longer."""


def code_bits(engine: ExactEngine, inputs: torch.Tensor) -> float:
    """Code length of a row by the engine's frequencies (numerics section 8, less the rounding down).

    Args:
        engine: the model.
        inputs: (T + 1,) int64 on the engine's device, the start token first.
    """
    hidden, targets = engine.forward(inputs[None, :-1])[0], inputs[1:, None]
    reserve, bits = engine.vocab_size / (1 << 24), 0.0
    size = max(1, _MOST_MASSES // engine.vocab_size)
    for begin in range(0, len(targets), size):  # a large vocabulary's masses of all tokens would take gigabytes
        masses = engine.masses(hidden[begin : begin + size])
        share = masses.gather(1, targets[begin : begin + size])[:, 0].double() / masses.sum(1)
        bits -= float(torch.log2(share * (1 - reserve) + 2.0**-24).sum())
    return bits


def choose(model: ExactModel, rows: list[torch.Tensor], device: torch.device) -> ExactModel:
    """The model with the number of planes that these rows ask for; one plane if there are no rows.

    Args:
        model: with any number of planes: the weights are the same.
        rows: (T + 1,) int64 each, the start token first, T at most the context.
        device: to run on; the bits are the same on all.
    """

    def with_planes(model: ExactModel, number: int) -> ExactModel:
        return dataclasses.replace(model, config=dataclasses.replace(model.config, planes=number))

    if not rows:
        return with_planes(model, 1)
    moved = model.to(device)  # once, for both engines

    def bits(number: int) -> float:
        engine = ExactEngine(with_planes(moved, number), device)
        return sum(code_bits(engine, row.to(device)) for row in rows)

    return with_planes(model, 2 if bits(1) > SECOND_PLANE_FROM * bits(2) else 1)
