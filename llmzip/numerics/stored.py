"""Tables that take long to compute: read from files next to the program, and computed where a file is not intact.

Each function states the SHA-256 of its table, as the documents do; a file with that hash holds the table.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "stored"
"""Where the files are: NAME.bin, little-endian int32."""

TABLES: dict[str, Callable[[], np.ndarray]] = {}
"""Name -> the function that computes the table, for tools and tests."""


def stored(sha256: str) -> Callable[[Callable[[], np.ndarray]], Callable[[], np.ndarray]]:
    """Makes a function without arguments read its table of int32 from the file of its name, and compute it otherwise.

    Args:
        sha256: hash of the table as little-endian int32, in hexadecimal.
    """

    def decorate(make: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        TABLES[make.__name__] = make

        def read() -> np.ndarray:
            try:
                data = (FOLDER / f"{make.__name__}.bin").read_bytes()
            except OSError:
                return make()
            if hashlib.sha256(data).hexdigest() != sha256:
                return make()
            return np.frombuffer(data, dtype="<i4").astype(np.int32)

        cached = functools.cache(read)
        functools.update_wrapper(cached, make)  # __wrapped__ computes
        return cached

    return decorate
