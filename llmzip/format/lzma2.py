"""LZMA2 as frames and carried models have it (format section 3)."""

from __future__ import annotations

import lzma

_MIN_DICTIONARY_BITS = 12
"""The smallest dictionary that LZMA2 has, 4 KiB."""


def lzma_filters(size: int) -> list[dict[str, int]]:
    """Returns the raw stream's filters: LZMA2 with a dictionary that holds all of the data.

    Args:
        size: of the uncompressed data in bytes, at least 1.
    """
    bits = max(_MIN_DICTIONARY_BITS, (size - 1).bit_length())
    return [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << bits}]
