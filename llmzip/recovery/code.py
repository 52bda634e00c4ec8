"""The Reed-Solomon code of recovery data over columns of words (format section 5b). Must not know files or packets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from . import field

_STRIPE_WORDS = 1 << 20
"""Words that go through a transform at once, 2 MiB: what it needs besides is a few times as much."""


def parity_points(num_parity: int) -> int:
    """Returns m: the points that parity blocks take, whether they are kept or not."""
    return 1 << max(num_parity - 1, 0).bit_length()


class ParityMaker:
    """Makes parity blocks of blocks that come in order, `points` at a time.

    Args:
        num_parity: r, the number of parity blocks.
        block_words: words of a block.
    """

    def __init__(self, num_parity: int, block_words: int) -> None:
        self.points = parity_points(num_parity)
        self._num_parity, self._first = num_parity, self.points
        self._sum = np.zeros((self.points, block_words), dtype=np.uint16)

    def add(self, blocks: np.ndarray) -> None:
        """Adds the next blocks, (n, block_words) uint16 with n <= points; fewer only at the end."""
        # A codeword's highest coefficients are 0, and they are the sum of those of all its cosets.
        for columns in _stripes(*self._sum.shape):
            values = np.zeros((self.points, columns.stop - columns.start), dtype=np.uint16)
            values[: len(blocks)] = blocks[:, columns]
            field.interpolate(values, self._first)
            self._sum[:, columns] ^= values
        self._first += self.points

    def finish(self) -> np.ndarray:
        """Returns the parity blocks, (r, block_words) uint16."""
        for columns in _stripes(*self._sum.shape):
            values = np.ascontiguousarray(self._sum[:, columns])
            field.evaluate(values, 0)
            self._sum[:, columns] = values
        return self._sum[: self._num_parity]


class Restorer:
    """Computes lost blocks from the others.

    Args:
        num_parity: r, the number of parity blocks there once were.
        num_blocks: k, the number of blocks.
        lost_parity: numbers of parity blocks that are not there.
        lost_blocks: numbers of blocks that are not there, at most as many as there are parity blocks.
    """

    def __init__(
        self, num_parity: int, num_blocks: int, lost_parity: Iterable[int], lost_blocks: Iterable[int]
    ) -> None:
        points = parity_points(num_parity)
        self.first_block = points
        self.size = 1 << (points + num_blocks - 1).bit_length()
        lost_data = np.array(sorted(lost_blocks), dtype=np.int64) + points
        lost = np.concatenate([np.array(sorted(lost_parity), dtype=np.int64), np.arange(num_parity, points), lost_data])
        if len(lost) > points:
            raise ValueError(f"{len(lost_data)} blocks cannot be restored")
        self._lost = lost_data
        logs = _locator_logs(lost, self.size)
        # At the lost points this is the derivative of the locator, elsewhere its value.
        self._locator = _powers(logs)
        self._locator[lost] = 0
        self._inverse_slope = _powers(-logs[lost_data])

    def stripes(self, block_words: int) -> Iterable[slice]:
        """Yields parts of the columns of a block that are computed at once."""
        return _stripes(self.size, block_words)

    def restore(self, words: np.ndarray) -> np.ndarray:
        """Returns columns of the lost blocks.

        Args:
            words: (size, columns) uint16: parity blocks, from `first_block` on the blocks; anything for lost ones and
                zeros beyond. It is overwritten.

        Returns:
            (lost blocks, columns) uint16, in the order of their numbers.
        """
        words = field.multiply(words, self._locator[:, None])
        field.interpolate(words, 0)
        words = field.differentiate(words)
        field.evaluate(words, 0)
        return field.multiply(words[self._lost], self._inverse_slope[:, None])


def _stripes(size: int, columns: int) -> Iterable[slice]:
    """Yields parts of the columns of (size, columns) words that are computed at once."""
    width = max(16, _STRIPE_WORDS // size)
    return (slice(begin, min(begin + width, columns)) for begin in range(0, columns, width))


def _locator_logs(lost: np.ndarray, size: int) -> np.ndarray:
    """Returns, for each of the points, the logarithm of the product of its differences from the lost points.

    The factor 0 of a lost point itself is left out. Differences are exclusive-ors, so the sums of logarithms are a
    convolution that Walsh-Hadamard transforms compute, exactly, in integers.
    """
    logs, _ = field.tables()
    distances = logs[:size].astype(np.int64)
    distances[0] = 0
    found = np.zeros(size, dtype=np.int64)
    found[lost] = 1
    found = _hadamard(_hadamard(found) * _hadamard(distances)) // size  # all sums are below 2^48
    remainders: np.ndarray = found % field.ORDER
    return remainders


def _hadamard(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    for level in range(len(values).bit_length() - 1):
        pairs = values.reshape(-1, 2, 1 << level)
        first, second = pairs[:, 0].copy(), pairs[:, 1].copy()
        pairs[:, 0], pairs[:, 1] = first + second, first - second
    return values


def _powers(logs: np.ndarray) -> np.ndarray:
    _, powers = field.tables()
    found: np.ndarray = powers[logs % field.ORDER]
    return found
