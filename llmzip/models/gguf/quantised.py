"""Block-quantised numbers as GGUF files hold them: names, sizes and values. The only module that uses `gguf`."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

_ELEMENTS = 1 << 16
"""Numbers that are dequantised at once: 256 KiB of float32."""


def name(kind: int) -> str | None:
    """Returns the name of a quantisation by its number; None if it is not known or cannot be dequantised."""
    known = _known()
    return known[kind][0] if kind in known else None


def shown(kind: int) -> str:
    """Returns the name of any quantisation, or its number, for messages."""
    import gguf

    try:
        return gguf.GGMLQuantizationType(kind).name
    except ValueError:
        return str(kind)


def row_bytes(kind: int, columns: int) -> int | None:
    """Returns the bytes of a row of a known quantisation; None if whole blocks do not make it."""
    _, block, size = _known()[kind]
    return None if columns % block else columns // block * size


def values(kind: int, rows: np.ndarray) -> np.ndarray:
    """Returns rows of a known quantisation in float32. What is not finite stays so.

    Args:
        kind: number of the quantisation.
        rows: (N, bytes) uint8.

    Returns:
        (N, K).
    """
    import gguf

    _, block, size = _known()[kind]
    quantisation = gguf.GGMLQuantizationType(kind)
    packed = np.ascontiguousarray(rows).reshape(-1)
    wide = np.empty(len(packed) // size * block, dtype=np.float32)
    step = _ELEMENTS // block  # blocks; the library is slow with the short rows of most matrices
    with np.errstate(all="ignore"):
        for first in range(0, len(packed) // size, step):
            chunk = packed[first * size : (first + step) * size]
            wide[first * block : (first + step) * block] = gguf.dequantize(chunk[None], quantisation)[0]
    return wide.reshape(len(rows), rows.shape[1] // size * block)


@functools.cache
def _known() -> Mapping[int, tuple[str, int, int]]:
    """Returns number -> name, elements and bytes of a block, of what can be dequantised."""
    import gguf

    known = {}
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.dequantize(np.zeros((1, size), dtype=np.uint8), kind)
        except NotImplementedError:  # the library's answer for kinds that it knows the size of and nothing more
            continue
        known[int(kind)] = (kind.name, block, size)
    return known
