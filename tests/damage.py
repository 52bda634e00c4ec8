"""Damaged forms of a payload."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def damages(payload: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Yields the payload cut off, with a bit flipped, and with a random end, at each of its places."""
    for place in range(len(payload)):
        yield payload[:place]
        yield payload[:place] + bytes([payload[place] ^ 1 << place % 8]) + payload[place + 1 :]
        yield payload[:place] + rng.bytes(len(payload))
