"""Tables that take a while to compute are kept beside the program, and computed where a file is not what it should be.

Each function says the SHA-256 of its table, which the documents state: a file that has it holds the table.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "stored"

TABLES: dict[str, Callable[[], np.ndarray]] = {}
"""Name -> the function that computes the table, for tools and tests."""


def stored(sha256: str) -> Callable[[Callable[[], np.ndarray]], Callable[[], np.ndarray]]:
    """A function without arguments that makes a table of int32, which is read from a file of its name instead.

    Args:
        sha256: of the table as little-endian int32.
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

        found = functools.cache(read)
        functools.update_wrapper(found, make)  # __wrapped__ computes
        return found

    return decorate
