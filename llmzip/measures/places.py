"""Places of a file for a sample: the parts that are not noise, and evenly spread pieces of them; knows no models."""

from __future__ import annotations

import os
from typing import BinaryIO

from ..codec.methods import looks_random
from ..format.headers import MAX_LM_BYTES
from ..system.streams import read_upto

_MAX_LOOKS = 32
"""Places at most where a file is looked at."""

_LOOK_BYTES = 1 << 13
"""Bytes that are looked at in each: 8 KiB."""


class Places:
    """A file, of which parts are read.

    Args:
        source: a seekable binary file.

    Attributes:
        size: of the file in bytes.
        texts: its parts that are not noise, after `find_texts`.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.size = source.seek(0, os.SEEK_END)
        self.texts: list[range] = []

    @property
    def text_bytes(self) -> int:
        """Size of all parts that are not noise, in bytes."""
        return sum(map(len, self.texts))

    def read(self, begin: int, size: int) -> bytes:
        """Returns up to `size` bytes of the file."""
        self._source.seek(begin)
        return read_upto(self._source, size)

    def find_texts(self) -> None:
        """Finds the parts that are not noise by looks all over the file; the model is never asked about noise."""
        step = max(MAX_LM_BYTES, -(-self.size // _MAX_LOOKS))
        for begin in range(0, self.size, step):
            part = range(begin, min(begin + step, self.size))
            middle = begin + max(0, len(part) - _LOOK_BYTES) // 2
            if not looks_random(self.read(middle, min(_LOOK_BYTES, len(part)))):
                self.texts.append(part)

    def spread(self, count: int, size: int) -> list[bytes]:
        """Returns `count` pieces, evenly spread over the text; each begins with a whole character if it is UTF-8."""
        total, pieces = self.text_bytes, []
        for number in range(count):
            offset = number * total // count
            for part in self.texts:
                if offset < len(part):
                    piece = self.read(part.start + offset, min(size, len(part) - offset))
                    pieces.append(piece.lstrip(bytes(range(0x80, 0xC0))) if piece[4:5] else piece)
                    break
                offset -= len(part)
        return pieces

    def run_of(self, size: int) -> bytes:
        """Returns up to `size` neighbouring bytes from the middle of the text."""
        part = self.texts[len(self.texts) // 2]
        return self.read(part.start + max(0, len(part) - size) // 2, min(size, len(part)))
