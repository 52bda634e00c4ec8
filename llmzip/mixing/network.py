"""The network that corrects the mixer's probabilities: its shape and its file; must not know texts, rows or tables.

It was learnt from texts once and for all: `tools/make_network.py` writes the file, docs/numerics.md sections 10.7 and
10.11 describe it, and it holds for every model and vocabulary. Only its output weights go on learning.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .stored import stored_file

FILE = Path(__file__).parent / "network.bin"

DIGEST = "b4ff0ca31dab61f323190c0a39a67ad0957f3fb1342e50fb4232f1eff4a28214"
"""SHA-256 of the file. All archives depend on it."""

INPUTS = 93
"""Values that the first layer reads."""

ROWS = 88
"""Rows of which CHOICES are added to the first layer's sums, as if each were the weights of an input of 1."""

CHOICES = 5

UNITS = 32
"""Units of each layer."""

FIRST_BITS = 13
"""A weight of the first layer is stored in units of 2^-13."""

SECOND_BITS = 12
"""The others are stored in units of 2^-12."""

_ONE_BITS = 8
"""Values are in units of 2^-8."""

_PADDED_INPUTS = 96
"""Inputs in memory, whole registers; those past INPUTS are 0."""

_OUTPUT_BITS = 15
"""Bits of an output weight that the file does not say."""


class Stored(NamedTuple):
    """What the file says.

    Attributes:
        first: (INPUTS, UNITS) int16; row: (ROWS, UNITS) int16: the first layer, in units of 2^-FIRST_BITS.
        second: (UNITS, UNITS) int16; bias: (UNITS,) int16: the second layer, in units of 2^-SECOND_BITS.
        output: (UNITS,) int16: what the output weights are at first, in units of 2^-SECOND_BITS.
    """

    first: np.ndarray
    row: np.ndarray
    second: np.ndarray
    bias: np.ndarray
    output: np.ndarray


class Network(NamedTuple):
    """The two layers as the compiled walk reads them (`struct Network` of native/state.h).

    Attributes:
        first: (48, UNITS, 2) int16, second: (16, UNITS, 2) int16: weights of each pair of inputs side by side.
        row: (ROWS, UNITS) int32, bias: (UNITS,) int32: in the units of the layers' sums.
    """

    first: np.ndarray
    second: np.ndarray
    row: np.ndarray
    bias: np.ndarray


_SHAPES = ((INPUTS, UNITS), (ROWS, UNITS), (UNITS, UNITS), (UNITS,), (UNITS,))


def packed(stored: Stored) -> bytes:
    """Returns the bytes of the file."""
    return b"".join(table.astype("<i2").tobytes() for table in stored)


def unpacked(data: bytes) -> Stored:
    """Returns what the bytes of a file say.

    Raises:
        ValueError: `packed` did not make this.
    """
    sizes = [int(np.prod(shape)) for shape in _SHAPES]
    if len(data) != 2 * sum(sizes):
        raise ValueError(f"{len(data)} bytes of a network, not {2 * sum(sizes)}")
    values = np.split(np.frombuffer(data, dtype="<i2").astype(np.int16), np.cumsum(sizes)[:-1])
    return Stored(*(part.reshape(shape) for part, shape in zip(values, _SHAPES, strict=True)))


@functools.cache
def _stored() -> Stored:
    return unpacked(stored_file(FILE, DIGEST))


@functools.cache
def network() -> Network:
    """Returns the network; its arrays must not be changed.

    Raises:
        EngineError: the file is missing or not the one of this version.
    """
    stored = _stored()
    return Network(
        _by_pair(np.pad(stored.first, ((0, _PADDED_INPUTS - INPUTS), (0, 0)))),
        _by_pair(stored.second),
        stored.row.astype(np.int32) << _ONE_BITS,
        stored.bias.astype(np.int32) << _ONE_BITS,
    )


def first_output_weights() -> np.ndarray:
    """Returns (UNITS,) int32: what the output weights are at first, 2^27 is 1.

    Raises:
        EngineError: the file is missing or not the one of this version.
    """
    return _stored().output.astype(np.int32) << _OUTPUT_BITS


def _by_pair(weight: np.ndarray) -> np.ndarray:
    """Returns (n / 2, UNITS, 2) from (n, UNITS)."""
    return np.ascontiguousarray(weight.reshape(-1, 2, UNITS).transpose(0, 2, 1))
