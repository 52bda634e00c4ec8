"""The bytes that decoded tokens may stand for; must not know coders, frames or windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import CorruptError


class ByteLimit:
    """Counts the bytes that decoded tokens stand for and stops above a limit: damage must not fill the memory.

    Args:
        num_bytes: returns how many bytes an array of tokens stands for.
        max_bytes: what all tokens together may stand for.
        progress: called with the number of bytes of the tokens that were just added.
    """

    def __init__(
        self, num_bytes: Callable[[np.ndarray], int], max_bytes: int, progress: Callable[[int], None] | None = None
    ) -> None:
        self._num_bytes, self._max_bytes, self._progress = num_bytes, max_bytes, progress
        self._seen_bytes = 0

    def add(self, tokens: np.ndarray) -> None:
        """Counts the next tokens, (n,) int64, in any order.

        Raises:
            CorruptError: all together stand for more than the limit.
        """
        new_bytes = self._num_bytes(tokens)
        self._seen_bytes += new_bytes
        if self._seen_bytes > self._max_bytes:
            raise CorruptError(
                f"damaged: the compressed data stands for more than the {self._max_bytes} bytes it should"
            )
        if self._progress is not None:
            self._progress(new_bytes)
