"""Where a text's bits lie: from the scores of tokens to characters, lines, spans; must not know models, files or pages.

Tokens are not characters: one may hold several, and several may share one. What can be shown, coloured and cut is a
*unit*: the fewest neighbouring tokens that end where a character ends. Its bits are the sum of its tokens'. In text
that is no UTF-8 each odd byte counts as a character.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RULES = ("combined", "global", "monotonic")
"""The rules by which spans are cut."""

DEFAULT_PERCENTILE = 30.0


@dataclass(frozen=True)
class Units:
    """A text in units, in its order.

    Attributes:
        data: the text.
        bits: (U,) float64, what each unit costs.
        ends: (U,) int64, rising: the byte behind each unit; the last one is the length of the text.
        token_ends: (U,) int64, rising: the number of the token behind each unit.
    """

    data: bytes
    bits: np.ndarray
    ends: np.ndarray
    token_ends: np.ndarray

    @property
    def begins(self) -> np.ndarray:
        """(U,) int64, the first byte of each unit."""
        return _before(self.ends)


@dataclass(frozen=True)
class Lines:
    """The lines of a text, each with the newline that ends it.

    Attributes:
        ends: (L,) int64, rising: the byte behind each line.
        bits: (L,) float64, the sum of the units that begin in each line.
    """

    ends: np.ndarray
    bits: np.ndarray

    @property
    def begins(self) -> np.ndarray:
        """(L,) int64, the first byte of each line."""
        return _before(self.ends)


@dataclass(frozen=True)
class Span:
    """Neighbouring units.

    Attributes:
        begin: its first byte.
        text: its bytes.
        tokens: how many it has.
        bits: what they cost.
    """

    begin: int
    text: bytes
    tokens: int
    bits: float


def token_sizes(ids: np.ndarray, table: Sequence[bytes], escape: int | None) -> np.ndarray:
    """How many bytes of the text each token stands for.

    Args:
        ids: (N,) int64.
        table: bytes of each id.
        escape: the id behind which any id stands for one byte, and which itself stands for nothing; None for none.

    Returns:
        (N,) int64.
    """
    import numpy as np  # not before it is needed: --help must be quick

    sizes: np.ndarray = np.array([len(entry) for entry in table], dtype=np.int64)[ids]
    if escape is not None:
        behind = False
        for place, token in enumerate(ids.tolist()):
            if behind:
                sizes[place], behind = 1, False
            elif token == escape:
                sizes[place], behind = 0, True
    return sizes


def units_of(data: bytes, sizes: np.ndarray, bits: np.ndarray) -> Units:
    """The units of a text.

    Args:
        data: the text, not empty.
        sizes: (N,) int64, bytes of each token, len(data) in all.
        bits: (N,) float64, what each token costs.
    """
    import numpy as np

    if not len(data) or int(sizes.sum()) != len(data):
        raise ValueError("the tokens are not those of the text")
    at_character = np.zeros(len(data) + 1, dtype=bool)
    at_character[_character_ends(data)] = True
    ends = np.cumsum(sizes)
    closing = np.flatnonzero(at_character[ends] & (sizes > 0))  # an escape belongs to the byte behind it
    token_ends = closing + 1
    return Units(data, np.add.reduceat(bits, _before(token_ends)), ends[closing], token_ends)


def lines_of(units: Units) -> Lines:
    """The lines; a unit that lies in several counts in the one that it begins in."""
    import numpy as np

    data = units.data
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + 1
    if not len(ends) or ends[-1] < len(data):
        ends = np.append(ends, len(data))
    line = np.searchsorted(ends, units.begins, side="right")
    return Lines(ends, np.bincount(line, weights=units.bits, minlength=len(ends)))


def joined(bits: np.ndarray, rule: str = RULES[0], percentile: float = DEFAULT_PERCENTILE) -> np.ndarray:
    """Whether each unit belongs to the span of the unit before it.

    With h_i the bits of unit i, and t the given percentile of all of them, it does so if

        global      h_i < t
        monotonic   h_i < h_(i-1)
        combined    h_i < h_(i-1) or h_i < t

    Source: ByteSpan, arXiv 2506.18639, whose model sees bytes, and which also cuts between words. Its authors' code
    has the threshold as a percentile.

    Returns:
        (U,) bool, the first one False.
    """
    import numpy as np

    falling = np.zeros(len(bits), dtype=bool)
    falling[1:] = bits[1:] < bits[:-1]
    if rule == "monotonic":
        return falling
    low: np.ndarray = bits < np.percentile(bits, percentile)
    low[0] = False
    return low if rule == "global" else falling | low


def spans_of(units: Units, rule: str = RULES[0], percentile: float = DEFAULT_PERCENTILE) -> Iterator[Span]:
    """The text cut where surprise rises, see `joined`."""
    import numpy as np

    starts = np.flatnonzero(~joined(units.bits, rule, percentile))
    last = np.append(starts[1:], len(units.bits)) - 1
    sums = np.add.reduceat(units.bits, starts)
    tokens = np.diff(units.token_ends[last], prepend=0)
    begins, ends = units.begins[starts].tolist(), units.ends[last].tolist()
    for begin, end, count, bits in zip(begins, ends, tokens.tolist(), sums.tolist(), strict=True):
        yield Span(begin, units.data[begin:end], count, bits)


def profile(units: Units, most: int) -> np.ndarray:
    """Bits per byte along the text, in at most so many equal parts; a unit's bits lie evenly over its bytes.

    Returns:
        (P,) float64.
    """
    import numpy as np

    edges = np.linspace(0, len(units.data), min(most, len(units.data)) + 1)
    sums = np.interp(edges, np.append(0, units.ends), np.append(0.0, np.cumsum(units.bits)))
    found: np.ndarray = np.diff(sums) / np.diff(edges)
    return found


def _before(ends: np.ndarray) -> np.ndarray:
    """Where each part begins, from where each ends."""
    import numpy as np

    begins: np.ndarray = np.append(0, ends[:-1])
    return begins


def _character_ends(data: bytes) -> np.ndarray:
    """The byte behind each character, and behind each byte that is part of none."""
    import numpy as np

    text = data.decode("utf-8", "surrogateescape")  # a lone surrogate stands for one odd byte
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    odd = (points >= 0xDC80) & (points <= 0xDCFF)
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    ends: np.ndarray = np.cumsum(np.where(odd, 1, sizes))
    return ends
