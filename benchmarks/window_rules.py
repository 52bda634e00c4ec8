"""The rules for the end of a window that were published, to compare with; nothing is stored by them.

"Training LLMs over Neurally Compressed Text" (arXiv 2404.03626), section 3.3 and appendix A.5. Exact: intervals are
integers over a power of two that grows with each token.
"""

from __future__ import annotations

import numpy as np

from llmzip.windows.codes import precision_bits


class PrintedWriter:
    """Section 3.3: a window takes tokens as long as their arithmetic code has at most W bits; zeros fill it up.

    That is not uniquely decodable (docs/windows.md).

    Args:
        window_bits: W.
    """

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._precision = precision_bits(window_bits)
        self._intervals = [(0, 1)]  # low and width behind each token, over 2^(b tokens)

    def add(self, left: int, right: int) -> bool:
        """As `windows.WindowWriter.add`."""
        low, width = self._intervals[-1]
        low, width = (low << self._precision) + width * left, width * (right - left)
        if self._cell(low, width, len(self._intervals), self._window_bits) is None:
            return False
        self._intervals.append((low, width))
        return True

    def close(self, full: bool) -> tuple[int, int]:
        """As `windows.WindowWriter.close`."""
        del full
        count = self._count()
        code = self._code(count)
        self._intervals = self._intervals[:1]
        return code, count

    def _count(self) -> int:
        """Tokens that the window is to hold."""
        return len(self._intervals) - 1

    def _code(self, count: int) -> int:
        """The shortest code of so many tokens, with zeros behind it up to W bits."""
        for bits in range(self._window_bits + 1):
            cell = self._cell(*self._intervals[count], count, bits)
            if cell is not None:
                return cell << self._window_bits - bits
        raise AssertionError("what was taken has a code")

    def _cell(self, low: int, width: int, count: int, bits: int) -> int | None:
        """The first n for which [n, n + 1) / 2^bits lies within an interval over 2^(b count), if there is one."""
        size = self._precision * count
        first = -(-(low << bits) >> size)
        return first if first + 1 << size <= low + width << bits else None


class DelayWriter(PrintedWriter):
    """Appendix A.5, made exact: of the tokens that fit, a window holds the fewest that have its very code."""

    def _count(self) -> int:
        most = super()._count()
        code = self._code(most)
        return next((count for count in range(1, most) if self._code(count) == code), most)


def read_printed(code: int, window_bits: int, table: np.ndarray) -> list[int]:
    """Decodes a window as section 3.3 says: the longest text whose code it is, one token after the other.

    Args:
        code: of the window.
        window_bits: W.
        table: (V + 1,) int64, cumulative frequencies, the same for every token.
    """
    return _texts_of(code, window_bits, table)[-1]


def read_delayed(code: int, window_bits: int, table: np.ndarray) -> list[int]:
    """As `read_printed` by the other rule: the shortest such text."""
    return _texts_of(code, window_bits, table)[0]


def _texts_of(code: int, window_bits: int, table: np.ndarray) -> list[list[int]]:
    """All texts that a window may stand for; each is the beginning of the next."""
    writer, tokens, found = PrintedWriter(window_bits), list[int](), list[list[int]]()
    while True:
        low, width = writer._intervals[-1]
        size = writer._precision * len(tokens)
        # Where the code lies within the interval, in 2^b parts of it.
        place = ((code << size) - (low << window_bits) << writer._precision) // (width << window_bits)
        token = int(np.searchsorted(table, place, side="right")) - 1
        if not writer.add(int(table[token]), int(table[token + 1])):
            return found
        tokens.append(token)
        if writer._code(len(tokens)) == code:
            found.append(list(tokens))
        elif found:
            return found
