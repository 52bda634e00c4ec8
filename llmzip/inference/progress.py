"""Progress while text goes through a model, in bytes and in tokens, and the limit on what damaged data may give."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import CorruptError

if TYPE_CHECKING:
    import numpy as np

Progress = Callable[[int], None]
"""Called with how much has been done since the last call: bytes of the text unless its user names another unit."""

TokenProgress = Callable[["np.ndarray"], None]
"""Called with the tokens that have been done since the last call, (n,) int64, in any order."""


def in_bytes(progress: Progress | None, num_bytes: Callable[[np.ndarray], int]) -> TokenProgress | None:
    """Makes a callback for tokens from one for bytes.

    Args:
        progress: called with numbers of bytes; None for nobody to call.
        num_bytes: counts the bytes that tokens stand for.
    """
    return None if progress is None else lambda ids: progress(num_bytes(ids))


class ByteMeter:
    """Counts the bytes that decoded tokens stand for, so that damaged data cannot fill the memory.

    Args:
        num_bytes: counts the bytes that tokens stand for.
        max_bytes: what all tokens may stand for together.
        progress: called with the number of bytes of each call of `add`.
    """

    def __init__(
        self, num_bytes: Callable[[np.ndarray], int], max_bytes: int, progress: Progress | None = None
    ) -> None:
        self._num_bytes, self._max_bytes, self._progress = num_bytes, max_bytes, progress
        self._seen_bytes = 0

    def add(self, tokens: np.ndarray) -> None:
        """Counts tokens, (n,) int64, that were just decoded.

        Raises:
            CorruptError: all tokens so far stand for more than `max_bytes`.
        """
        new_bytes = self._num_bytes(tokens)
        self._seen_bytes += new_bytes
        if self._seen_bytes > self._max_bytes:
            raise CorruptError(f"damaged: the data stands for more than the {self._max_bytes:,} bytes it should")
        if self._progress is not None:
            self._progress(new_bytes)
