"""Reading and writing that neither takes a pause for the end nor a part for the whole; knows no names, no options.

Everything in this package that reads a file or stream which it did not open as a plain file itself, or that writes to
one, goes through `read_some`, `read_upto` and `write_all`, or through a `DescriptorReader` or `DescriptorWriter`. The
danger is in what `read` and `write` may answer: a descriptor that somebody else made non-blocking (node, tokio, asyncio
and ssh leave pipes like that) gives None or too little where nothing has come yet, and a raw file may take less than it
is given.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
from typing import Any, BinaryIO, Protocol

from ..errors import LLMZipError

_PIECE_BYTES = 1 << 16
_READ_BYTES = 1 << 20

DIFFERS = (
    "the new archive does not decode to the source, which is kept, and no output was written; "
    "unless the source changed meanwhile, please report this"
)


class Readable(Protocol):
    """What is asked of a source: a method `read` as that of binary files, raw ones included."""

    def read(self, size: int, /) -> bytes | None: ...


class Writable(Protocol):
    """What is asked of a sink: a method `write` as that of binary files, raw ones included."""

    def write(self, data: bytes, /) -> int | None: ...


class OutputError(OSError):
    """The standard output takes no more; the cause is the system's own error."""


# -- any file object -------------------------------------------------------------------------------------------------


def read_some(source: Readable, size: int) -> bytes:
    """Reads 1 to `size` bytes, and waits for them where a non-blocking source has none yet.

    Returns:
        b"" only at the end.

    Raises:
        BlockingIOError: the source has none yet, and no descriptor to wait for.
        TypeError: it gives something else than bytes.
    """
    while True:
        try:
            data = source.read(size)
        except BlockingIOError:
            data = None
        if data is not None:
            break
        _wait_for(source, writing=False)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"read() must give bytes, not {type(data).__name__}: open the file in binary mode")
    return bytes(data)


def read_upto(source: Readable, size: int) -> bytes:
    """Reads `size` bytes, fewer only at the end; a hostile size allocates no more than what is there."""
    parts = []
    while size > 0:
        part = read_some(source, min(size, _READ_BYTES))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_all(sink: Writable, data: bytes) -> None:
    """Writes all of the data, however little the sink takes at a time.

    Raises:
        BlockingIOError: a non-blocking sink takes no more, and has no descriptor to wait for.
    """
    at, piece = 0, data
    while at < len(data):
        try:
            count = sink.write(piece)
        except BlockingIOError as error:  # a buffered file whose raw file takes no more: this much is in its buffer
            at += getattr(error, "characters_written", 0)
            if at < len(data):
                _wait_for(sink, writing=True)
        else:
            if count is None and not _may_be_none(sink):
                return  # a sink of somebody's own that does not count
            if not count:
                _wait_for(sink, writing=True)
            at += count or 0
        piece = data[at : at + _PIECE_BYTES]


def flush_all(sink: Any) -> None:
    """Hands on what a sink holds back, if it has a `flush`; waits for a non-blocking one.

    Raises:
        BlockingIOError: it takes no more, and has no descriptor to wait for.
    """
    flush = getattr(sink, "flush", None)
    while flush is not None:
        try:
            return flush()  # type: ignore[no-any-return]
        except BlockingIOError:
            _wait_for(sink, writing=True)


def _may_be_none(sink: Writable) -> bool:
    """Whether None from `write` means that nothing was taken, as the raw files of io say it."""
    if isinstance(sink, io.RawIOBase):
        return True
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return not os.get_blocking(sink.fileno())  # type: ignore[attr-defined]
    return False


def _wait_for(file: Any, *, writing: bool) -> None:
    """Waits until a file object can be read or written again.

    Raises:
        BlockingIOError: it has no descriptor to wait for.
    """
    try:
        descriptor = file.fileno()
    except (AttributeError, OSError, ValueError):
        what = "takes no more for now" if writing else "has nothing to read yet"
        raise BlockingIOError(errno.EAGAIN, f"the file {what}, and has no descriptor to wait for") from None
    wait(descriptor, writing=writing)


def wait(descriptor: int, *, writing: bool) -> None:
    """Waits until a descriptor can be read or written, or has an end or an error to tell of."""
    if not hasattr(select, "poll"):  # Windows; select itself knows no descriptors above 1,023
        select.select([] if writing else [descriptor], [descriptor] if writing else [], [])
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
    poll.poll()


# -- descriptors -----------------------------------------------------------------------------------------------------


class DescriptorReader(io.FileIO):
    """A raw file over a descriptor that always waits, also where somebody made the descriptor non-blocking.

    In an `io.BufferedReader` it makes a file whose reads are short only at the end.
    """

    def __init__(self, descriptor: int, *, closefd: bool = True) -> None:
        super().__init__(descriptor, "rb", closefd=closefd)

    def readinto(self, buffer: Any) -> int:
        """Reads at least one byte; 0 is the end."""
        while (count := super().readinto(buffer)) is None:
            wait(self.fileno(), writing=False)
        return count

    # The two others of FileIO go past `readinto`, and so must not be left as they are.

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads up to `size` bytes, at least one unless at the end; all for a negative size."""
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.readinto(buffer)])

    def readall(self) -> bytes:
        """Reads all up to the end."""
        parts = []
        while part := self.read(_PIECE_BYTES):
            parts.append(part)
        return b"".join(parts)


class DescriptorWriter(io.RawIOBase):
    """Writes all of it to a file descriptor, or raises.

    There is no buffer, so no error can come later than its write, and nothing is left to write at exit.

    Args:
        descriptor: is not closed with the writer.
        is_stdout: failures are those of the standard output, and raised as OutputError, but for a broken pipe.

    Attributes:
        num_bytes: written so far.
        error: what the last write failed with.
    """

    def __init__(self, descriptor: int, *, is_stdout: bool = False) -> None:
        self._descriptor = descriptor
        self._is_stdout = is_stdout
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
            except BlockingIOError:
                wait(self._descriptor, writing=True)
                continue
            except OSError as error:
                self.error = error
                if self._is_stdout and not isinstance(error, BrokenPipeError):
                    raise OutputError(error.errno, error.strerror) from error
                raise
            self.num_bytes += count
            rest = rest[count:]
        return size


# -- small sinks and sources -----------------------------------------------------------------------------------------


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
        if read_upto(self._expected, len(view)) != view:
            raise LLMZipError(DIFFERS)
        return len(view)

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self) -> None:
        """Raises LLMZipError if the decoded bytes were too few."""
        if read_some(self._expected, 1):
            raise LLMZipError(DIFFERS)


class Prefixed:
    """A stream with some bytes read ahead put back in front."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """Reads 1 to `size` bytes; b"" only at the end."""
        if not self._head:
            return read_some(self._rest, size)
        head, self._head = self._head[:size], self._head[size:]
        return head
