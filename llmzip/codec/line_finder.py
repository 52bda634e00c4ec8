"""Finds where lines begin in the text of archives; must not know how frames are read or decoded.

The index says which frame a line begins in. Frames that no index counts are decoded, up to the line's.
"""

from __future__ import annotations

from typing import Protocol

_BLOCK_BYTES = 1 << 16
"""Text whose line feeds are counted before any is looked for, 64 KiB."""


class Frames(Protocol):
    """The frames of a file of archives, numbered through the file."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""

    @property
    def num_bytes(self) -> int:
        """Size of the text in bytes."""

    def text_range(self, number: int) -> tuple[int, int]:
        """Returns where the text of a frame begins and ends in the file's text, in bytes."""

    def line_feeds(self, number: int) -> int | None:
        """Returns the number of line feeds in the text of a frame; None if no index says it."""

    def frame_text(self, number: int) -> bytes:
        """Returns the text of a frame, checked."""


class LineFinder:
    """Finds where lines begin. A line ends after its line feed, or with the text.

    Args:
        frames: the frames of a file.
    """

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._counts: dict[int, int] = {}  # of frames that no index counts

    def begin(self, number: int) -> int:
        """Returns where a line begins in the text, in bytes.

        Args:
            number: of the line, from 1; or below 0 from the end, -1 for the last line.

        Returns:
            the place; the end of the text for lines after the last one, its beginning for lines before the first one.

        Raises:
            CorruptError, ModelError, EngineError, TokenizerError: from the frames.
        """
        return self._from_front(number - 1) if number > 0 else self._from_end(-number)

    def _from_front(self, wanted: int) -> int:
        """Returns the place after a line feed, the first of which is 1; 0 for the text's beginning."""
        frames = self._frames
        if wanted == 0:
            return 0
        for number in range(frames.num_frames):
            count = self._count(number)
            if count >= wanted:
                return frames.text_range(number)[0] + _place_after(frames.frame_text(number), wanted)
            wanted -= count
        return frames.num_bytes

    def _from_end(self, line: int) -> int:
        """Returns where a line begins that is counted from the end, from 1."""
        frames = self._frames
        numbers = [number for number in range(frames.num_frames) if self._is_text(number)]
        if not numbers:
            return 0
        # A line feed at the end of the text belongs to the last line and begins no other.
        wanted = line + frames.frame_text(numbers[-1]).endswith(b"\n")
        for number in reversed(numbers):
            count = self._count(number)
            if count >= wanted:
                text = frames.frame_text(number)
                return frames.text_range(number)[0] + _place_after(text, count - wanted + 1)
            wanted -= count
        return 0

    def _is_text(self, number: int) -> bool:
        begin, end = self._frames.text_range(number)
        return begin < end

    def _count(self, number: int) -> int:
        """Returns the number of line feeds of a frame, which is decoded if no index says it."""
        count = self._frames.line_feeds(number)
        if count is None:
            if number not in self._counts:
                text = self._frames.frame_text(number) if self._is_text(number) else b""
                self._counts[number] = text.count(b"\n")
            count = self._counts[number]
        return count


def _place_after(text: bytes, wanted: int) -> int:
    """Returns the place after a line feed of a text that has as many, the first of which is 1."""
    place = 0
    while (count := text.count(b"\n", place, place + _BLOCK_BYTES)) < wanted:
        wanted -= count
        place += _BLOCK_BYTES
    for _ in range(wanted):
        place = text.index(b"\n", place) + 1
    return place
