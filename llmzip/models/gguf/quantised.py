"""Block-quantised numbers as GGUF files hold them: names, sizes and values. The only module that uses `gguf`."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np


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
    """
    import gguf

    with np.errstate(all="ignore"):
        wide = gguf.dequantize(np.ascontiguousarray(rows), gguf.GGMLQuantizationType(kind))
    return np.array(wide, dtype=np.float32)  # a copy: float32 itself comes as a view of the file


@functools.cache
def _known() -> Mapping[int, tuple[str, int, int]]:
    """Returns number -> name, elements and bytes of a block, of what can be dequantised."""
    import gguf

    known = {}
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.dequantize(np.zeros((1, size), dtype=np.uint8), kind)
        except NotImplementedError:
            continue
        known[int(kind)] = (kind.name, block, size)
    return known
