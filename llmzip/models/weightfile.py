"""The weight file, version 1: named arrays to and from entropy-coded bytes (docs/weights.md).

Must not know torch or models.

Interleaved range ANS (Duda 2013, arXiv:1311.2540): the lanes of a round are independent, so numpy treats them at once,
and neither compiled code nor the archive's coder is needed. Decoding is about ten array operations a round.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ModelUnsupportedError

MAGIC = b"\xf7LW"
VERSION = 1
_TOTAL_BITS = 14
_TOTAL = 1 << _TOTAL_BITS  # sum of the frequencies of a table
_LOW_BITS = 16
_LOW = 1 << _LOW_BITS  # states are at least this
_MAX_HEADER_BYTES = 1 << 20  # 1 MiB
_MAX_LANES = 1 << 14
_MAX_WRITTEN_LANES = 4096
_VALUES_PER_LANE = 2048  # about; more lanes are not written for so few values
_MAX_VALUES_PER_BYTE = 1 << 10
_MAX_DIMENSIONS = 8
_DTYPES = {"int8": "<i1", "float32": "<f4"}
_PREFIX_BYTES = len(MAGIC) + 1 + 4


# -- writing ---------------------------------------------------------------------------------------------------------


def pack(config: Mapping[str, Any], numerics: int, tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of a weight file.

    Args:
        config: of JSON's types.
        numerics: version of the arithmetic that the model is for.
        tensors: name -> int8 or float32 array; written in the order of their names.

    Raises:
        ModelUnsupportedError: nearly constant tensors, which would exceed a reader's limit.
    """
    listed = [(name, array.dtype.name, array) for name, array in sorted(tensors.items())]
    header = {"config": config, "numerics": numerics, "tensors": [[n, k, list(a.shape)] for n, k, a in listed]}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    planes = [plane for _, kind, array in listed for plane in _planes(array, kind)]
    lanes = min(_MAX_WRITTEN_LANES, max(1, sum(len(plane) for plane in planes) // _VALUES_PER_LANE))
    records, coded = [], []
    for plane in planes:
        frequencies = _frequencies(np.bincount(plane, minlength=256))
        table = _pack_table(frequencies)
        if len(table) + _cost_bits(plane, frequencies) / 8 < len(plane):
            records.append(b"\1" + table)
            coded.append((plane, frequencies))
        else:
            records.append(b"\0" + plane.tobytes())
    states, words = _encode(coded, lanes)
    out = b"".join(
        [
            MAGIC,
            bytes([VERSION]),
            len(text).to_bytes(4, "little"),
            text,
            lanes.to_bytes(2, "little"),
            *records,
            states.astype("<u4").tobytes(),
            len(words).to_bytes(4, "little"),
            words.astype("<u2").tobytes(),
        ]
    )
    out += zlib.crc32(out).to_bytes(4, "little")
    if sum(array.size for _, _, array in listed) > _MAX_VALUES_PER_BYTE * len(out):
        raise ModelUnsupportedError("weight file: nearly all weights are equal: readers refuse such a file")
    return out


def _planes(array: np.ndarray, kind: str) -> list[np.ndarray]:
    """Splits an array into planes of bytes, the lowest first."""
    flat = np.ascontiguousarray(array, dtype=_DTYPES[kind]).reshape(-1, 1).view(np.uint8)
    return [np.ascontiguousarray(flat[:, column]) for column in range(flat.shape[1])]


def _frequencies(counts: np.ndarray) -> np.ndarray:
    """Returns (256,) int64 with sum 2^14, close to the counts in proportion and at least 1 for what occurs."""
    total = int(counts.sum())
    if total == 0:
        return np.array([_TOTAL] + [0] * 255)
    rounded = np.rint(counts * (_TOTAL / total)).astype(np.int64)
    frequencies: np.ndarray = np.maximum(rounded, (counts > 0).astype(np.int64))
    while (excess := int(frequencies.sum()) - _TOTAL) != 0:
        # Rounding leaves a few units, and many rare values some more: the largest bear them best.
        largest = int(frequencies.argmax())
        frequencies[largest] -= excess if excess < 0 else min(excess, max(1, int(frequencies[largest]) // 8))
    return frequencies


def _cost_bits(plane: np.ndarray, frequencies: np.ndarray) -> float:
    """Returns the code length of a plane in bits, without the table."""
    used = np.flatnonzero(np.bincount(plane, minlength=256))
    counts = np.bincount(plane, minlength=256)[used]
    return float((counts * (_TOTAL_BITS - np.log2(frequencies[used]))).sum())


def _encode(planes: Sequence[tuple[np.ndarray, np.ndarray]], lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the states and words from which the planes decode; everything is coded backwards."""
    states = np.full(lanes, _LOW, dtype=np.uint64)
    groups: list[np.ndarray] = []
    for plane, frequencies in reversed(planes):
        starts = np.cumsum(frequencies) - frequencies
        if int(frequencies.max()) == _TOTAL:
            continue  # a state that meets the whole range stays as it is
        for first in range((len(plane) - 1) // lanes * lanes, -1, -lanes):
            symbols = plane[first : first + lanes]
            x = states[: len(symbols)]
            frequency = frequencies[symbols].astype(np.uint64)
            full = x >= frequency << np.uint64(32 - _TOTAL_BITS)
            groups.append(x[full].astype(np.uint16))
            x[full] >>= np.uint64(_LOW_BITS)
            x[:] = (x // frequency << np.uint64(_TOTAL_BITS)) + x % frequency + starts[symbols].astype(np.uint64)
    words = np.concatenate(groups[::-1]) if groups else np.zeros(0, dtype=np.uint16)
    return states.astype(np.uint32), words


def _pack_table(frequencies: np.ndarray) -> bytes:
    """Writes the frequencies as varints, and runs of zeros as a zero and how many follow it."""
    out, i = bytearray(), 0
    while i < 256:
        out += _varint(int(frequencies[i]))
        if frequencies[i] == 0:
            run = 1
            while i + run < 256 and frequencies[i + run] == 0:
                run += 1
            out += _varint(run - 1)
            i += run
        else:
            i += 1
    return bytes(out)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


# -- reading ---------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads a file from its beginning, and never past an end.

    Args:
        data: the file.
        end: bytes of it that may be read.
    """

    def __init__(self, data: bytes, end: int) -> None:
        self.data, self.end, self.at = data, end, 0

    def take(self, count: int) -> bytes:
        if count > self.end - self.at:
            raise ModelUnsupportedError("weight file: truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.number(1)
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ModelUnsupportedError("weight file: damaged: a number is too long")


def unpack(
    data: bytes, max_values_per_byte: int = _MAX_VALUES_PER_BYTE
) -> tuple[dict[str, Any], int, dict[str, np.ndarray]]:
    """Returns config, numerics version and tensors of a weight file; the inverse of `pack`.

    Args:
        data: the file.
        max_values_per_byte: values that the tensors may have for each byte of it, before anything is allocated.

    Raises:
        ModelUnsupportedError: not a weight file, one of another version, or a damaged one.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ModelUnsupportedError("weight file: not one of llmzip's")
    if data[len(MAGIC) : len(MAGIC) + 1] not in (b"", bytes([VERSION])):
        raise ModelUnsupportedError(
            f"weight file: version {data[len(MAGIC)]}, this llmzip reads versions {VERSION} and 2"
        )
    if len(data) < _PREFIX_BYTES + 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ModelUnsupportedError("weight file: damaged: its crc32 is wrong")
    reader = _Reader(data, len(data) - 4)
    reader.take(len(MAGIC) + 1)
    length = reader.number(4)
    if length > _MAX_HEADER_BYTES:
        raise ModelUnsupportedError("weight file: damaged: its header is too long")
    try:
        header = json.loads(reader.take(length).decode())
        config, numerics = dict(header["config"]), _size(header["numerics"])
        listed = [(str(name), str(kind), [_size(size) for size in shape]) for name, kind, shape in header["tensors"]]
        if any(len(shape) > _MAX_DIMENSIONS for *_, shape in listed):
            raise ValueError("a tensor of too many dimensions")
        widths = [np.dtype(_DTYPES[kind]).itemsize for _, kind, _ in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelUnsupportedError(f"weight file: damaged: its header is wrong ({error})") from None
    sizes = [math.prod(shape) for _, _, shape in listed]
    claimed = sum(math.prod(max(1, size) for size in shape) for _, _, shape in listed)
    # Python's integers do not overflow, so this bound holds for whatever sizes a file claims.
    if claimed > max_values_per_byte * len(data):
        raise ModelUnsupportedError("weight file: damaged: more values than a file of this size can hold")
    lanes = reader.number(2)
    if not 1 <= lanes <= _MAX_LANES:
        raise ModelUnsupportedError(f"weight file: damaged: {lanes} lanes")
    planes = [_read_plane(reader, size) for size, width in zip(sizes, widths, strict=True) for _ in range(width)]
    states = np.frombuffer(reader.take(4 * lanes), dtype="<u4").astype(np.uint32)
    words = np.frombuffer(reader.take(2 * reader.number(4)), dtype="<u2")
    if reader.at != reader.end:
        raise ModelUnsupportedError("weight file: damaged: bytes are left over")
    _decode(planes, states, words)
    tensors: dict[str, np.ndarray] = {}
    arrays = iter(array for array, _ in planes)
    for (name, kind, shape), width in zip(listed, widths, strict=True):
        columns = np.stack([next(arrays) for _ in range(width)], axis=1)
        tensors[name] = columns.view(_DTYPES[kind]).reshape(shape)
    return config, numerics, tensors


def _size(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError(f"{value!r} is not a size")
    return value


def _read_plane(reader: _Reader, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the bytes of a plane, and the frequencies to decode them with; None if they were stored as they are."""
    mode = reader.number(1)
    if mode == 0:
        return np.frombuffer(reader.take(size), dtype=np.uint8), None
    if mode != 1:
        raise ModelUnsupportedError(f"weight file: damaged: a plane of kind {mode}")
    frequencies: list[int] = []
    while len(frequencies) < 256:
        frequencies.append(reader.varint())
        if frequencies[-1] == 0:
            frequencies += [0] * min(reader.varint(), 256)
    if len(frequencies) != 256 or sum(frequencies) != _TOTAL:
        raise ModelUnsupportedError("weight file: damaged: a table of frequencies is wrong")
    return np.empty(size, dtype=np.uint8), np.array(frequencies, dtype=np.int64)


def _decode(planes: Sequence[tuple[np.ndarray, np.ndarray | None]], states: np.ndarray, words: np.ndarray) -> None:
    """Decodes the coded planes in place."""
    if int(states.min()) < _LOW:
        raise ModelUnsupportedError("weight file: damaged: a coder's state is too small")
    lanes, at = len(states), 0
    low, mask, shift = np.uint32(_LOW), np.uint32(_TOTAL - 1), np.uint32(_TOTAL_BITS)
    word_shift = np.uint32(_LOW_BITS)
    # Buffers for one round, allocated once, with indices in the dtype that look-ups want: much of the time that a
    # program takes to start is spent here.
    slot_buffer, value_buffer = np.empty(lanes, dtype=np.intp), np.empty(lanes, dtype=np.uint32)
    for plane, frequencies in planes:
        if frequencies is None:
            continue
        symbol_of = np.repeat(np.arange(256, dtype=np.uint8), frequencies)
        if int(frequencies.max()) == _TOTAL:
            plane[:] = symbol_of[0]
            continue
        frequency_of = frequencies[symbol_of].astype(np.uint32)
        rest_of = (np.arange(_TOTAL) - (np.cumsum(frequencies) - frequencies)[symbol_of]).astype(np.uint32)
        for first in range(0, len(plane), lanes):
            symbols = plane[first : first + lanes]
            count = len(symbols)
            x, slot, value = states[:count], slot_buffer[:count], value_buffer[:count]
            slot[:] = x & mask
            # Every slot is in range; "clip" only spares numpy a copy that guards against others.
            symbol_of.take(slot, out=symbols, mode="clip")
            # f * (x >> 14) + rest < 2^14 * 2^18: no product leaves 32 bits.
            x >>= shift
            x *= frequency_of.take(slot, out=value, mode="clip")
            x += rest_of.take(slot, out=value, mode="clip")
            short = np.flatnonzero(x < low)
            if at + len(short) > len(words):
                raise ModelUnsupportedError("weight file: damaged: its words end too early")
            x[short] = (x[short] << word_shift) | words[at : at + len(short)]
            at += len(short)
    if at != len(words) or bool((states != low).any()):
        raise ModelUnsupportedError("weight file: damaged: the coders do not end as they began")
