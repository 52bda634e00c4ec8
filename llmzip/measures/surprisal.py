"""Surprisal along a text: the bits of tokens given to characters, lines and spans; must not know models or pages.

Tokens are not characters: one may hold several, and several may share one. What can be shown, coloured and cut is a
*unit*: the fewest consecutive tokens that end where a character ends. Its bits are the sum of its tokens'. In text that
is not valid UTF-8 each odd byte counts as a character.
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
"""Percentile of the units' bits below which a unit joins the span before it, unless the user says otherwise."""


@dataclass(frozen=True)
class Units:
    """A text as U units, in order.

    Attributes:
        data: the text.
        bits: (U,) float64, what each unit costs.
        ends: (U,) int64, rising: where each unit ends, in bytes; the last one is the length of the text.
        token_ends: (U,) int64, rising: where each unit ends, in tokens.
    """

    data: bytes
    bits: np.ndarray
    ends: np.ndarray
    token_ends: np.ndarray

    @property
    def begins(self) -> np.ndarray:
        """Where each unit begins, in bytes, (U,) int64."""
        return _before(self.ends)


@dataclass(frozen=True)
class Lines:
    """The L lines of a text, each with the newline that ends it.

    Attributes:
        ends: (L,) int64, rising: where each line ends, in bytes.
        bits: (L,) float64, bits of the units that begin in each line.
    """

    ends: np.ndarray
    bits: np.ndarray

    @property
    def begins(self) -> np.ndarray:
        """Where each line begins, in bytes, (L,) int64."""
        return _before(self.ends)


@dataclass(frozen=True)
class Span:
    """A run of consecutive units.

    Attributes:
        begin: where the span begins in the text, in bytes.
        text: the span's bytes.
        tokens: number of its tokens.
        bits: what they cost.
    """

    begin: int
    text: bytes
    tokens: int
    bits: float


def token_sizes(ids: np.ndarray, table: Sequence[bytes]) -> np.ndarray:
    """Counts the bytes of the text that each token stands for.

    Args:
        ids: (N,) int64, the tokens of a text.
        table: the bytes of each id.

    Returns:
        (N,) int64, bytes of each token. With a table of (b"the", b" cat", b"s") the ids [0, 1, 2] give [3, 4, 1].
    """
    import numpy as np  # not before it is needed: --help must be quick

    sizes: np.ndarray = np.array([len(entry) for entry in table], dtype=np.int64)[ids]
    return sizes


def units_of(data: bytes, sizes: np.ndarray, bits: np.ndarray) -> Units:
    """Groups the tokens of a text into units.

    A text "aä" whose tokens are 61, c3 and a4 has two units, "a" and "ä": the second one ends where its character ends
    and costs what both of its tokens cost.

    Args:
        data: the text, not empty.
        sizes: (N,) int64, bytes of each token, at least 1, len(data) in all.
        bits: (N,) float64, what each token costs.
    """
    import numpy as np

    if not len(data) or int(sizes.sum()) != len(data):
        raise ValueError("the tokens are not those of the text")
    at_character = np.zeros(len(data) + 1, dtype=bool)
    at_character[_character_ends(data)] = True
    ends = np.cumsum(sizes)
    closing = np.flatnonzero(at_character[ends])
    token_ends = closing + 1
    return Units(data, np.add.reduceat(bits, _before(token_ends)), ends[closing], token_ends)


def lines_of(units: Units) -> Lines:
    """Sums up the bits of each line; a unit that is in several lines counts in the one that it begins in."""
    import numpy as np

    data = units.data
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + 1
    if not len(ends) or ends[-1] < len(data):
        ends = np.append(ends, len(data))
    line = np.searchsorted(ends, units.begins, side="right")
    return Lines(ends, np.bincount(line, weights=units.bits, minlength=len(ends)))


def joined(bits: np.ndarray, rule: str = RULES[0], percentile: float = DEFAULT_PERCENTILE) -> np.ndarray:
    """Decides which units belong to the span of the unit before them.

    With h_i the bits of unit i, and t the given percentile of all of them, unit i does if

        global      h_i < t
        monotonic   h_i < h_(i-1)
        combined    h_i < h_(i-1) or h_i < t

    Source: ByteSpan, arXiv 2506.18639, whose model sees bytes, and which also cuts between words. The threshold is a
    percentile in its authors' code.

    Args:
        bits: (U,) float64, what each unit costs.
        rule: one of RULES.
        percentile: 0 to 100.

    Returns:
        (U,) bool; the first one is False.
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
    """Cuts the text where surprise rises, by the rules of `joined`."""
    import numpy as np

    starts = np.flatnonzero(~joined(units.bits, rule, percentile))
    last = np.append(starts[1:], len(units.bits)) - 1
    sums = np.add.reduceat(units.bits, starts)
    tokens = np.diff(units.token_ends[last], prepend=0)
    begins, ends = units.begins[starts].tolist(), units.ends[last].tolist()
    for begin, end, count, bits in zip(begins, ends, tokens.tolist(), sums.tolist(), strict=True):
        yield Span(begin, units.data[begin:end], count, bits)


def profile(units: Units, max_parts: int) -> np.ndarray:
    """Computes bits per byte along the text, in equal parts; a unit's bits are spread evenly over its bytes.

    Args:
        units: the text.
        max_parts: number of parts; a text of fewer bytes has a part for each byte.

    Returns:
        (P,) float64, P <= max_parts.
    """
    import numpy as np

    edges = np.linspace(0, len(units.data), min(max_parts, len(units.data)) + 1)
    sums = np.interp(edges, np.append(0, units.ends), np.append(0.0, np.cumsum(units.bits)))
    rates: np.ndarray = np.diff(sums) / np.diff(edges)
    return rates


def _before(ends: np.ndarray) -> np.ndarray:
    """Returns where each part begins, from where each ends."""
    import numpy as np

    begins: np.ndarray = np.append(0, ends[:-1])
    return begins


def _character_ends(data: bytes) -> np.ndarray:
    """Returns where each character ends, and each byte that is not part of one, in bytes."""
    import numpy as np

    text = data.decode("utf-8", "surrogateescape")  # a lone surrogate stands for one odd byte
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    odd = (points >= 0xDC80) & (points <= 0xDCFF)
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    ends: np.ndarray = np.cumsum(np.where(odd, 1, sizes))
    return ends
