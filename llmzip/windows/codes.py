"""Codes of Equal-Info windows: cumulative frequencies into codes of exactly W bits and back; must not know models.

The method is that of "Training LLMs over Neurally Compressed Text" (arXiv 2404.03626, section 3.3) with another rule
for the end of a window, because the printed one is not uniquely decodable (docs/windows.md). Here a window is one of
2^W codes, held as a range of codes that each token narrows; where there are fewer codes left than a token's frequencies
need, the last one means that the window is over (format section 4d). Everything is integers.
"""

from __future__ import annotations

import numpy as np

_UNIT_BITS = 39
"""Bits of the range that are computed with: a product with 2^24 stays below 2^63."""


def precision_bits(window_bits: int) -> int:
    """Returns b: the frequencies of all tokens have the sum 2^b, so that a window has room for at least one token.

    Args:
        window_bits: W, 16 to 65,536.
    """
    return min(24, window_bits)


class WindowWriter:
    """Packs tokens into windows, one window after the other.

    Args:
        window_bits: W, 16 to 65,536.
    """

    def __init__(self, window_bits: int) -> None:
        self.window_bits = window_bits
        self._precision = precision_bits(window_bits)
        self._begin()

    def _begin(self) -> None:
        self._count = 0
        # The range of codes is [low, low + units << below).
        self._below = max(0, self.window_bits - _UNIT_BITS + 1)
        self._units = 1 << self.window_bits - self._below
        self._low = 0

    def add(self, left: int, right: int) -> bool:
        """Takes a token if the window has a code for it.

        Args:
            left, right: its cumulative frequencies, 0 <= left < right <= 2^b.

        Returns:
            whether it was taken; if not, the window must be closed first, and the next one takes it.
        """
        total, units = 1 << self._precision, self._units
        if units < total:
            units -= 1  # the last code says that the window is over
        first, end = units * left >> self._precision, units * right >> self._precision
        if first == end:
            return False
        self._low += first << self._below
        units = end - first
        shift = min(self._below, _UNIT_BITS - units.bit_length())
        self._units, self._below = units << shift, self._below - shift
        self._count += 1
        return True

    def close(self, full: bool) -> tuple[int, int]:
        """Ends the window and begins the next.

        Args:
            full: whether a token was refused; False if the reader knows that no token follows.

        Returns:
            the window's code, 0 <= code < 2^W, and how many tokens it holds.
        """
        code, count = self._low + (self._units - 1 if full else 0), self._count
        self._begin()
        return code, count


class WindowReader:
    """Reads many windows side by side, one token of each at a time.

    Args:
        data: bits, the first of a byte being its highest; window i begins at bit i W.
        window_bits: W, 16 to 65,536.
        windows: (n,) int64, numbers of the windows to read.
    """

    def __init__(self, data: bytes, window_bits: int, windows: np.ndarray) -> None:
        self._bits = np.frombuffer(data + bytes(8), dtype=np.uint8)
        self._precision = precision_bits(window_bits)
        self._below = np.full(len(windows), max(0, window_bits - _UNIT_BITS + 1), dtype=np.int64)
        first = window_bits - self._below
        self._units = np.left_shift(1, first)
        self._at = windows * window_bits
        self._value = np.zeros_like(self._units)
        self._take_bits(np.arange(len(windows)), first)

    def targets(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Looks at the next token of some of the windows.

        Args:
            places: (k,) int64, which windows, among 0 .. n - 1, each at most once.

        Returns:
            (k,) int64, cumulative frequencies q, 0 <= q < 2^b, each within the next token's; and (k,) bool, whether the
            window is over, so that q means nothing.
        """
        units, value = self._token_units(places), self._value[places]
        over = value >= units
        value[over] = 0
        return ((value + 1 << self._precision) - 1) // np.maximum(units, 1), over

    def take(self, places: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
        """Passes over a token of some of the windows.

        Args:
            places: (k,) int64, which windows, as with `targets`; none of them is over.
            left, right: (k,) int64, the tokens' cumulative frequencies, left <= q < right.
        """
        units = self._token_units(places)
        first, end = units * left >> self._precision, units * right >> self._precision
        units, below = end - first, self._below[places]
        # frexp gives the number of bits: integers below 2^39 are exact in binary64.
        shift = np.minimum(below, _UNIT_BITS - np.frexp(units.astype(np.float64))[1])
        self._units[places] = units << shift
        self._below[places] = below - shift
        self._value[places] -= first
        self._take_bits(places, shift)

    def spare_bits(self) -> np.ndarray:
        """Returns the bits that each window has left after the tokens that were read from it, (n,) float64."""
        spare: np.ndarray = np.log2(self._units) + self._below
        return spare

    def _token_units(self, places: np.ndarray) -> np.ndarray:
        """Returns how many units the next token may have: one less where the last one means the window's end."""
        units: np.ndarray = self._units[places]
        units -= units < 1 << self._precision
        return units

    def _take_bits(self, places: np.ndarray, counts: np.ndarray) -> None:
        """Appends the next bits of windows to their values, at most 39."""
        at = self._at[places]
        octets = np.minimum((at >> 3)[:, None] + np.arange(8), len(self._bits) - 1)
        words = self._bits[octets].view(">u8")[:, 0].astype(np.uint64) << (at & 7).astype(np.uint64)
        # A shift by 64 is undefined: by 1 and then by 63 - count it is not.
        new = (words >> np.uint64(1)) >> (63 - counts).astype(np.uint64)
        self._value[places] = (self._value[places] << counts) | new.astype(np.int64)
        self._at[places] = at + counts


def pack(codes: list[int], window_bits: int) -> bytes:
    """Joins the codes of windows of W bits into bytes, the last one filled up with zeros."""
    group = 8 // int(np.gcd(window_bits, 8))  # windows that fill whole bytes together
    out = bytearray()
    for begin in range(0, len(codes), group):
        value, part = 0, codes[begin : begin + group]
        for code in part:
            value = value << window_bits | code
        size = -(-len(part) * window_bits // 8)
        out += (value << 8 * size - len(part) * window_bits).to_bytes(size, "big")
    return bytes(out)
