"""Reports of what was done, in numbers: sizes, bits per byte and per character; does no input or output."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..format import headers, plan
from ..format.headers import WINDOWS, FrameHeader

if TYPE_CHECKING:
    from ..inference.load import Kernels


@dataclass(frozen=True)
class FrameReport:
    """One frame that was written or read.

    Attributes:
        method: its name in the format.
        original_bytes: size of the text.
        compressed_bytes: size of the frame from tag to crc32.
        rows, tokens: of methods with a model, else 0.
        bound_bits: sum of -log2 of the coded probabilities; None where there are none, or when reading.
    """

    method: str
    original_bytes: int
    compressed_bytes: int
    rows: int = 0
    tokens: int = 0
    bound_bits: float | None = None


def frame_report(header: FrameHeader, size: int, bits: float | None) -> FrameReport:
    """Returns the report of a frame with a header.

    Args:
        size: of the packed frame in bytes.
        bits: ideal length of the payload, where there is one.
    """
    in_rows = header.uses_model and header.method != WINDOWS
    num_rows = plan.header_plan(header, headers.MAX_CONTEXT).num_rows if in_rows else 0
    return FrameReport(header.method_name, header.original_bytes, size, num_rows, header.num_tokens, bits)


@dataclass
class StreamReport:
    """One file or stream that was compressed or decompressed.

    Attributes:
        original_bytes, compressed_bytes: totals, the latter with all headers.
        characters: Unicode characters of the text, or None if it is not valid UTF-8.
        frames: in order.
        model: name of the model that was used, or None.
        kernels: what computed it, or None.
        tokenizer_note: what its tokenizer lacks; empty for nothing.
        elapsed_seconds: wall clock, loading of the model included.
        seconds_ahead: those of them that were spent before this file's turn, when several were decoded together.
    """

    original_bytes: int = 0
    compressed_bytes: int = 0
    characters: int | None = 0
    frames: list[FrameReport] = field(default_factory=list)
    model: str | None = None
    kernels: Kernels | None = None
    tokenizer_note: str = ""
    elapsed_seconds: float = 0.0
    seconds_ahead: float = 0.0

    @property
    def bits_per_byte(self) -> float | None:
        """Compressed bits per original byte; None for an empty text."""
        return 8 * self.compressed_bytes / self.original_bytes if self.original_bytes else None

    @property
    def bits_per_character(self) -> float | None:
        """Compressed bits per character; None for an empty text or one that is not valid UTF-8."""
        return 8 * self.compressed_bytes / self.characters if self.characters else None


class CharacterCounter:
    """Counts the Unicode characters of UTF-8 that arrives in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._count: int | None = 0

    def add(self, data: bytes) -> None:
        """Counts the next piece, which may end inside a character."""
        if self._count is None:
            return
        try:
            self._count += len(self._decoder.decode(data))
        except UnicodeDecodeError:
            self._count = None

    def finish(self) -> int | None:
        """Returns the number of characters, or None if the whole was not valid UTF-8."""
        if self._count is not None:
            try:
                self._count += len(self._decoder.decode(b"", final=True))
            except UnicodeDecodeError:
                self._count = None
        return self._count
