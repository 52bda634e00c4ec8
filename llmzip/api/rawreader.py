"""The raw file under an LLMZipFile that reads: decoded text without a buffer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..codec.reader import decoded_texts
from ..errors import LLMZipError
from ..settings import DecompressSettings


class RawReader(io.RawIOBase):
    """The text of all archives in a file, for an io.BufferedReader.

    An io.BufferedReader loses what it has read for a call if the raw file raises. So `readinto` answers an error with
    None, as a non-blocking file does when it has no data yet: the reader hands out what it has, or None itself, and
    whoever uses it raises `error` then. `readall` raises.

    Args:
        file: a binary file, read from its current position. It is not closed.
        settings: where the model runs, and what it has read before.

    Attributes:
        error: why the text cannot be read any further, None until then. Seeking back clears it.
    """

    def __init__(self, file: BinaryIO, settings: DecompressSettings) -> None:
        self._file, self._settings = file, settings
        self._start = file.tell() if self.seekable() else 0
        self._restart()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(getattr(self._file, "seekable", lambda: False)())

    def readinto(self, buffer: Any) -> int | None:
        """Fills a buffer with text of at most one frame.

        Returns:
            the number of bytes, 0 only at the end; None if there is an `error`.
        """
        if not self._fill():
            return None if self.error is not None else 0
        part = self._take(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def readall(self) -> bytes:
        """Reads the rest of the text, and raises `error` if that is not all of it."""
        parts = []
        while self._fill():
            parts.append(self._take(len(self._text)))
        if self.error is not None:
            raise self.error
        return b"".join(parts)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves in the text: forward by decoding what is between, back by starting again.

        Returns:
            the new position, which an `error` or the end of the text may keep below the one asked for.
        """
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            while self._fill():
                self._take(len(self._text))
            if self.error is not None:
                return self._position
            offset += self._position
        if offset < 0:
            raise ValueError(f"negative seek position {offset}")
        if offset < self._position:
            self._file.seek(self._start)
            self._restart()
        while self._position < offset and self._fill():
            self._take(offset - self._position)
        return self._position

    def _restart(self) -> None:
        self._position = 0
        self._text = memoryview(b"")  # decoded, but not handed out yet
        self.error: Exception | None = None
        self._texts: Iterator[bytes] = decoded_texts(self._file, self._settings)

    def _fill(self) -> bool:
        """Decodes frames until there is text to hand out; returns False at the end and after an error."""
        while not self._text and self.error is None:
            try:
                text = next(self._texts, None)
            except Exception as error:
                self.error = error
            except BaseException:
                # The iterator is spent, which would look like the end of the text.
                self.error = LLMZipError("reading was interrupted; open the file again")
                raise
            else:
                if text is None:
                    return False
                self._text = memoryview(text)
        return bool(self._text)

    def _take(self, size: int) -> memoryview:
        part, self._text = self._text[:size], self._text[size:]
        self._position += len(part)
        return part
