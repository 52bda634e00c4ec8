"""Reading and writing that take neither a pause for the end nor a part for the whole. Must not know names or options.

Everything in this package that reads or writes a stream, or a file that it did not open itself as a plain file, goes
through `read_some`, `read_upto` and `write_all`, or through a `DescriptorReader` or `DescriptorWriter`. The danger is
in what `read` and `write` may answer: a descriptor that another program made non-blocking (node, tokio, asyncio and
ssh leave pipes like that) gives None or too little if no data has arrived yet, and a raw file may take less than it
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

_PIECE_BYTES = 64 * 1024  # what one call writes after the first, and `readall` reads at a time
_READ_BYTES = 1 << 20  # 1 MiB: most to allocate before it is known how much there is

DIFFERS = (
    "the new archive does not decode to the source, which is kept, and no output was written; "
    "unless the source changed meanwhile, please report this"
)


class Readable(Protocol):
    """A source: anything with the `read` method of binary files, raw ones included."""

    def read(self, size: int, /) -> bytes | None: ...


class Writable(Protocol):
    """A sink: anything with the `write` method of binary files, raw ones included."""

    def write(self, data: bytes, /) -> int | None: ...


class OutputError(OSError):
    """A failed write to standard output; the cause is the system's own error."""


# -- any file object -------------------------------------------------------------------------------------------------


def read_some(source: Readable, size: int) -> bytes:
    """Reads 1 to `size` bytes, and waits for them if a non-blocking source has none yet.

    Returns:
        the bytes; b"" only at the end.

    Raises:
        BlockingIOError: the source has no data yet, and no descriptor to wait for.
        TypeError: the source returns anything but bytes.
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
        raise TypeError(f"read() must return bytes, not {type(data).__name__}: open the file in binary mode")
    return bytes(data)


def read_upto(source: Readable, size: int) -> bytes:
    """Reads `size` bytes, fewer only at the end; a hostile size allocates no more than the source holds."""
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
        BlockingIOError: a non-blocking sink takes no more for now, and has no descriptor to wait for.
    """
    written, piece = 0, data
    while written < len(data):
        try:
            count = sink.write(piece)
        except BlockingIOError as error:  # a buffered file whose raw file takes no more: this much is in its buffer
            written += getattr(error, "characters_written", 0)
            if written < len(data):
                _wait_for(sink, writing=True)
        else:
            if count is None and not _may_be_none(sink):
                return  # a sink with a `write` of its own, which does not count
            if not count:
                _wait_for(sink, writing=True)
            written += count or 0
        piece = data[written : written + _PIECE_BYTES]


def flush_all(sink: Any) -> None:
    """Flushes a sink that has a `flush`, and waits for a non-blocking one.

    Raises:
        BlockingIOError: the sink takes no more for now, and has no descriptor to wait for.
    """
    flush = getattr(sink, "flush", None)
    while flush is not None:
        try:
            return flush()  # type: ignore[no-any-return]
        except BlockingIOError:
            _wait_for(sink, writing=True)


def _may_be_none(sink: Writable) -> bool:
    """Whether None from `write` means that nothing was taken, as it does for the raw files of io."""
    if isinstance(sink, io.RawIOBase):
        return True
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return not os.get_blocking(sink.fileno())  # type: ignore[attr-defined]
    return False


def _wait_for(file: Any, *, writing: bool) -> None:
    """Waits until a file object can be read or written again.

    Raises:
        BlockingIOError: the file has no descriptor to wait for.
    """
    try:
        descriptor = file.fileno()
    except (AttributeError, OSError, ValueError):
        state = "takes no more for now" if writing else "has nothing to read yet"
        raise BlockingIOError(errno.EAGAIN, f"the file {state}, and has no descriptor to wait for") from None
    wait(descriptor, writing=writing)


def wait(descriptor: int, *, writing: bool) -> None:
    """Waits until a descriptor can be read or written, or has an end or an error to report."""
    if not hasattr(select, "poll"):  # Windows; select itself knows no descriptors above 1,023
        select.select([] if writing else [descriptor], [descriptor] if writing else [], [])
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
    poll.poll()


# -- descriptors -----------------------------------------------------------------------------------------------------


class DescriptorReader(io.FileIO):
    """A raw file over a descriptor that always waits, even if another program made the descriptor non-blocking.

    With an `io.BufferedReader` around it, reads are short only at the end.
    """

    def __init__(self, descriptor: int, *, closefd: bool = True) -> None:
        super().__init__(descriptor, "rb", closefd=closefd)

    def readinto(self, buffer: Any) -> int:
        """Reads at least one byte; 0 is the end."""
        while (count := super().readinto(buffer)) is None:
            wait(self.fileno(), writing=False)
        return count

    # FileIO's own `read` and `readall` do not go through `readinto`, and would not wait.

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads up to `size` bytes, at least one unless at the end; all for a negative size."""
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.readinto(buffer)])

    def readall(self) -> bytes:
        """Reads everything up to the end."""
        parts = []
        while part := self.read(_PIECE_BYTES):
            parts.append(part)
        return b"".join(parts)


class DescriptorWriter(io.RawIOBase):
    """A raw file over a descriptor whose `write` writes everything or raises.

    There is no buffer, so no error comes later than its write, and nothing is left to write at exit.

    Args:
        descriptor: the file descriptor, which is not closed with the writer.
        is_stdout: raise failures as OutputError, except for a broken pipe.

    Attributes:
        num_bytes: the number of bytes written so far.
        error: the error of the last write that failed.
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
        """Writes all of the data, even if the system takes it in parts."""
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
    """A sink that compares decoded bytes with a file.

    Args:
        expected: the original file, at its start.
    """

    def __init__(self, expected: BinaryIO) -> None:
        self._expected = expected

    def write(self, data: Any) -> int:
        """Compares the next bytes; raises LLMZipError if they differ."""
        view = memoryview(data).cast("B")
        if read_upto(self._expected, len(view)) != view:
            raise LLMZipError(DIFFERS)
        return len(view)

    def flush(self) -> None:
        """Does nothing: this sink buffers nothing."""

    def finish(self) -> None:
        """Raises LLMZipError if the file has more bytes than were decoded."""
        if read_some(self._expected, 1):
            raise LLMZipError(DIFFERS)


class Prefixed:
    """A source that first returns bytes that were already read from it."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """Reads 1 to `size` bytes; b"" only at the end."""
        if not self._head:
            return read_some(self._rest, size)
        head, self._head = self._head[:size], self._head[size:]
        return head
