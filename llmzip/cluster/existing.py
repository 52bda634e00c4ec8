"""Whether an archive and a text belong together, without decoding: by header, index and checksums.

A rerun keeps what passes. An archive cut short, damaged, or of another text does not: its frames' checks cover header
and payload, and their CRC-32 are compared with those of the text.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, cast

from ..codec.lines import LineCheck
from ..errors import LLMZipError
from ..format.headers import Frame, Header
from ..format.reading import read_archives
from ..system.streams import read_upto

_READ_BYTES = 1 << 20


class HashingReader:
    """A stream that hashes what is read from it.

    Args:
        stream: a binary file.

    Attributes:
        num_bytes: bytes read so far.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Reads and hashes."""
        data = self._stream.read(size)
        self._hash.update(data)
        self.num_bytes += len(data)
        return data

    def seekable(self) -> bool:
        """Says that all of the stream is there and nothing need wait for its writer; it is read from front to back."""
        return True

    @property
    def sha256(self) -> str:
        """SHA-256 of what was read, as hexadecimal digits."""
        return self._hash.hexdigest()


class HashingWriter:
    """A stream that hashes what is written to it.

    Args:
        stream: a binary file; None to keep nothing but the digest.

    Attributes:
        num_bytes: bytes written so far.
    """

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: bytes) -> int:
        """Writes all of the data and hashes it."""
        if self._stream is not None:
            self._stream.write(data)
        self._hash.update(data)
        self.num_bytes += len(data)
        return len(data)

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written, as hexadecimal digits."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Pair:
    """An archive and its text.

    Attributes:
        text_bytes, archive_bytes: their sizes.
        text_sha256, archive_sha256: their digests, as hexadecimal digits.
        tokens: tokens of all frames; None if nobody has counted them.
    """

    text_bytes: int
    archive_bytes: int
    text_sha256: str
    archive_sha256: str
    tokens: int | None


def matching_pair(archive: BinaryIO, text: BinaryIO, headers: Iterable[Header] | None = None) -> Pair | None:
    """Reads an archive and a text to their ends; returns None unless they belong together.

    Args:
        archive: one archive, or several if `headers` is None.
        text: what it should be the archive of.
        headers: headers that the one archive may have; None for any.

    Raises:
        OSError: one of them cannot be read.
    """
    allowed = None if headers is None else list(headers)
    hashed_archive, hashed_text = HashingReader(archive), HashingReader(text)
    lines = LineCheck()
    tokens = num_archives = 0
    try:
        for frame in read_archives(cast("BinaryIO", hashed_archive)):
            num_archives += frame.number == 0
            if allowed is not None and (frame.archive not in allowed or num_archives > 1):
                return None
            line_feeds = held_line_feeds(frame, cast("BinaryIO", hashed_text))
            if line_feeds is None:
                return None
            lines.add(frame, line_feeds)
            tokens += frame.header.num_tokens
        lines.finish()
    except LLMZipError:
        return None
    if hashed_text.read(1):
        return None
    sizes = hashed_text.num_bytes, hashed_archive.num_bytes
    return Pair(*sizes, hashed_text.sha256, hashed_archive.sha256, tokens)


def frame_holds(frame: Frame, text: BinaryIO) -> bool:
    """Whether the next bytes of a text are those of a frame, by their number and CRC-32.

    Their line feeds are compared with the archive's index where that was read before.
    """
    line_feeds = held_line_feeds(frame, text)
    return line_feeds is not None and frame.line_feeds in (None, line_feeds)


def held_line_feeds(frame: Frame, text: BinaryIO) -> int | None:
    """Returns the number of line feeds in the next bytes of a text; None if these are not the bytes of a frame."""
    left, crc32, line_feeds = frame.header.original_bytes, 0, 0
    while left:
        data = read_upto(text, min(left, _READ_BYTES))
        if not data:
            return None
        crc32 = zlib.crc32(data, crc32)
        line_feeds += data.count(b"\n")
        left -= len(data)
    return line_feeds if crc32 == frame.crc32 else None
