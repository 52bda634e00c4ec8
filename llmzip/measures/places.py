"""Pieces of a file for a sample: the parts that are no noise, evenly spread places in them; must not know models."""

from __future__ import annotations

import os
from typing import BinaryIO

from ..codec.methods import looks_random
from ..format.headers import MAX_LM_BYTES
from ..system.streams import read_upto

_LOOKS, _LOOK_BYTES = 32, 1 << 13


class Places:
    """A file.

    Args:
        source: seekable.

    Attributes:
        size: bytes of the file.
        texts: its parts that are no noise, once they are found.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.size = source.seek(0, os.SEEK_END)
        self.texts: list[range] = []

    @property
    def text_bytes(self) -> int:
        """Bytes that are no noise."""
        return sum(map(len, self.texts))

    def read(self, begin: int, size: int) -> bytes:
        """Bytes of the file."""
        self._source.seek(begin)
        return read_upto(self._source, size)

    def find_texts(self) -> None:
        """Looks at places all over the file; where there is noise, the model is never asked."""
        step = max(MAX_LM_BYTES, -(-self.size // _LOOKS))
        for begin in range(0, self.size, step):
            part = range(begin, min(begin + step, self.size))
            middle = begin + max(0, len(part) - _LOOK_BYTES) // 2
            if not looks_random(self.read(middle, min(_LOOK_BYTES, len(part)))):
                self.texts.append(part)

    def spread(self, count: int, size: int) -> list[bytes]:
        """So many pieces, evenly spread over the text; each begins with a character if it is UTF-8."""
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
        """Neighbouring bytes from the middle of the text."""
        part = self.texts[len(self.texts) // 2]
        return self.read(part.start + max(0, len(part) - size) // 2, min(size, len(part)))
