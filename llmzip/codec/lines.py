"""Line feeds by the index of an archive against those of its text; knows no methods, models or files."""

from __future__ import annotations

from array import array

from ..errors import CorruptError
from ..format.headers import Frame, LineCounts


def check_line_feeds(frame: Frame, text: bytes) -> None:
    """Compares a frame's text with the index of its archive, if that was read before.

    Raises:
        CorruptError: the index promises another number of line feeds.
    """
    promised = frame.line_feeds
    if promised is not None and (found := text.count(b"\n")) != promised:
        raise _wrong(frame.number, promised, found)


class LineCheck:
    """Compares the texts of archives that are decoded from front to back with their indexes, which come after them."""

    def __init__(self) -> None:
        self._index: LineCounts | None = None
        self._found = array("I")

    def add(self, frame: Frame, line_feeds: int) -> None:
        """Takes the next frame; the first one of an archive ends the archive before.

        Args:
            frame: all frames of an archive must come, in order.
            line_feeds: number of line feeds in the frame's text.

        Raises:
            CorruptError: as `finish` does.
        """
        if frame.number == 0:
            self.finish()
        self._index = frame.index
        self._found.append(line_feeds)

    def finish(self) -> None:
        """Ends the archive, whose index must have been read.

        Raises:
            CorruptError: the index promises another number of line feeds for one of the frames.
        """
        promised = None if self._index is None else self._index.line_feeds
        found, self._found, self._index = self._found, array("I"), None
        if promised is not None and promised != found:
            number = next(n for n, pair in enumerate(zip(promised, found, strict=True)) if pair[0] != pair[1])
            raise _wrong(number, promised[number], found[number])


def _wrong(number: int, promised: int, found: int) -> CorruptError:
    """Makes the error for a frame with another number of line feeds than the index says."""
    return CorruptError(
        f"frame {number}: damaged: {promised:,} line feeds by the archive's index, {found:,} in the text"
    )
