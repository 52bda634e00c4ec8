"""The published rules for the end of a window, for comparison; llmzip stores nothing by them.

"Training LLMs over Neurally Compressed Text" (arXiv 2404.03626), section 3.3 and appendix A.5. Intervals are exact:
integers over a power of two that grows with each token.
"""

from __future__ import annotations

import numpy as np

from llmzip.windows.codes import precision_bits


class PrintedWriter:
    """The rule of section 3.3: a window takes tokens while their arithmetic code has at most W bits; zeros fill it.

    This is not uniquely decodable (docs/windows.md).

    Args:
        window_bits: W.
    """

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._precision = precision_bits(window_bits)
        self._intervals = [(0, 1)]  # low and width after each token, over 2^(b tokens)

    def add(self, left: int, right: int) -> bool:
        """Adds a token's interval if it fits; like `WindowWriter.add`."""
        low, width = self._intervals[-1]
        low, width = (low << self._precision) + width * left, width * (right - left)
        if self._cell(low, width, len(self._intervals), self._window_bits) is None:
            return False
        self._intervals.append((low, width))
        return True

    def close(self, full: bool) -> tuple[int, int]:
        """Returns the window's code and its number of tokens; like `WindowWriter.close`."""
        del full
        count = self._count()
        code = self._code(count)
        self._intervals = self._intervals[:1]
        return code, count

    def _count(self) -> int:
        """Returns the number of tokens that the window holds."""
        return len(self._intervals) - 1

    def _code(self, count: int) -> int:
        """Returns the shortest code of the first `count` tokens, with zeros after it up to W bits."""
        for bits in range(self._window_bits + 1):
            cell = self._cell(*self._intervals[count], count, bits)
            if cell is not None:
                return cell << self._window_bits - bits
        raise AssertionError("every token that was taken has a code")

    def _cell(self, low: int, width: int, count: int, bits: int) -> int | None:
        """Returns the first n with [n, n + 1) / 2^bits within an interval over 2^(b count); None if there is none."""
        size = self._precision * count
        first = -(-(low << bits) >> size)
        return first if first + 1 << size <= low + width << bits else None


class DelayWriter(PrintedWriter):
    """The rule of appendix A.5, made exact: of the tokens that fit, a window holds the fewest with the same code."""

    def _count(self) -> int:
        max_count = super()._count()
        code = self._code(max_count)
        return next((count for count in range(1, max_count) if self._code(count) == code), max_count)


def read_printed(code: int, window_bits: int, table: np.ndarray) -> list[int]:
    """Decodes a window as section 3.3 says, one token after the other: returns the longest text with that code.

    Args:
        code: the window's code.
        window_bits: W.
        table: (V + 1,) int64, cumulative frequencies, the same for every token.
    """
    return _texts_of(code, window_bits, table)[-1]


def read_delayed(code: int, window_bits: int, table: np.ndarray) -> list[int]:
    """Decodes a window by the rule of appendix A.5: returns the shortest text with that code."""
    return _texts_of(code, window_bits, table)[0]


def _texts_of(code: int, window_bits: int, table: np.ndarray) -> list[list[int]]:
    """Returns all texts that a window may stand for; each is the beginning of the next."""
    writer, tokens, texts = PrintedWriter(window_bits), list[int](), list[list[int]]()
    while True:
        low, width = writer._intervals[-1]
        size = writer._precision * len(tokens)
        # The position of the code in the interval, in units of 1 / 2^b of it.
        place = ((code << size) - (low << window_bits) << writer._precision) // (width << window_bits)
        token = int(np.searchsorted(table, place, side="right")) - 1
        if not writer.add(int(table[token]), int(table[token + 1])):
            return texts
        tokens.append(token)
        if writer._code(len(tokens)) == code:
            texts.append(list(tokens))
        elif texts:
            return texts
