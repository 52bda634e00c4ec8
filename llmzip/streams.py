"""Small streams between the codec and the files; must not know names, options or the archive format."""

from __future__ import annotations

import io
import os
import select
from typing import Any, BinaryIO

from .errors import LLMZipError

DIFFERS = (
    "the new archive does not decode to the source, which is kept, and no output was written; "
    "unless the source changed meanwhile, please report this"
)


class DescriptorWriter(io.RawIOBase):
    """Writes all of it to a file descriptor, or raises.

    There is no buffer, so no error can come later than its write, and nothing is left to write at exit.

    Attributes:
        num_bytes: written so far.
        error: what the last write failed with.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.num_bytes = 0
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        """Writes all of the data, however often the system takes only a part."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            try:
                count = os.write(self._descriptor, rest)
            except BlockingIOError:  # whoever shares the pipe made it non-blocking
                select.select([], [self._descriptor], [])
                continue
            except OSError as error:
                self.error = error
                raise
            self.num_bytes += count
            rest = rest[count:]
        return size


class Comparison:
    """Takes decoded bytes and compares them with a file.

    Args:
        expected: the original, at its start.
    """

    def __init__(self, expected: BinaryIO) -> None:
        self._expected = expected

    def write(self, data: Any) -> int:
        """Compares the next bytes."""
        view = memoryview(data).cast("B")
        if self._expected.read(len(view)) != view:
            raise LLMZipError(DIFFERS)
        return len(view)

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self) -> None:
        """Raises LLMZipError if the decoded bytes were too few."""
        if self._expected.read(1):
            raise LLMZipError(DIFFERS)


class Prefixed:
    """A stream with some bytes read ahead put back in front."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        """Like a buffered file's: fewer bytes than asked for only at the end."""
        head = self._head
        if size is None or size < 0:
            self._head = b""
            return head + self._rest.read()
        self._head = head[size:]
        return head[:size] + (self._rest.read(size - len(head)) if size > len(head) else b"")
