"""How a remote object is written so that it appears whole or not at all.

The danger is in fsspec's files: closed by an exception, they upload what they have been given so far and complete the
object. So none of them is ever closed by a `with` block here; `_abandon` makes one forget what it holds.

- `PutUpload`: everything is collected, in memory or in a temporary file, and put by one call that is atomic.
- `MultipartUpload`: an upload in parts that the store completes at the end, and aborts after an error.
- `RenameUpload`: a temporary name on a file server, then a rename.
"""

from __future__ import annotations

import abc
import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from typing import Any

from .faults import translated

PART_BYTES = 16 << 20  # 16 MiB
_MAX_PARTS = 9_000  # S3 allows 10,000; some are left because an expected size is not exact


def part_bytes(size_bytes: int) -> int:
    """Returns the size of an upload's parts, in bytes: 16 MiB, or as many MiB as an object of that size needs."""
    mib = 1 << 20
    return max(PART_BYTES, -(-size_bytes // (_MAX_PARTS * mib)) * mib)


class PartSink(io.RawIOBase):
    """A writer that passes its bytes on in parts of one size; the last one may be shorter.

    Nothing is passed on when it is closed, only by `write` and `finish`.

    Args:
        send: takes a part, which it must not keep.
        size_bytes: size of a part in bytes.
    """

    def __init__(self, send: Callable[[memoryview], object], size_bytes: int) -> None:
        super().__init__()
        self._send = send
        self._part_bytes = size_bytes
        self._part = bytearray()
        self._num_bytes = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._num_bytes

    def write(self, data: Any) -> int:
        """Takes all of the data."""
        if self.closed:
            raise ValueError("write to closed file")
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            if not self._part and len(rest) >= self._part_bytes:
                self._send(rest[: self._part_bytes])
                rest = rest[self._part_bytes :]
                continue
            room = self._part_bytes - len(self._part)
            self._part += rest[:room]
            rest = rest[room:]
            if len(self._part) == self._part_bytes:
                self._pass_on()
        self._num_bytes += size
        return size

    def _pass_on(self) -> None:
        part, self._part = self._part, bytearray()
        self._send(memoryview(part))

    def finish(self) -> None:
        """Passes the last part on."""
        if self._part:
            self._pass_on()


class Upload(abc.ABC):
    """One object on its way. Either `complete` or `abort` is called at the end, and `abort` also if `complete` fails.

    Args:
        fs: the fsspec file system.
        path: the object's path in it.
        uri: the object's URI, for messages.
    """

    def __init__(self, fs: Any, path: str, uri: str) -> None:
        self._fs = fs
        self._path = path
        self._uri = uri

    @abc.abstractmethod
    def send(self, part: memoryview) -> None:
        """Takes the next part, which is valid only during the call."""

    @abc.abstractmethod
    def complete(self) -> None:
        """Makes the object visible."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Removes what was uploaded; raises nothing, because an error is on its way already."""


class PutUpload(Upload):
    """An object that is put by one call. More than one part waits in a temporary file (TMPDIR) unless told otherwise.

    Args:
        in_memory: keep everything in memory.
    """

    def __init__(self, fs: Any, path: str, uri: str, *, in_memory: bool = False) -> None:
        super().__init__(fs, path, uri)
        self._data = bytearray()
        self._in_memory = in_memory
        self._file: Any = None

    def send(self, part: memoryview) -> None:
        if self._in_memory or (self._file is None and not self._data):
            self._data += part
            return
        try:
            if self._file is None:
                self._file = tempfile.NamedTemporaryFile(prefix="llmzip-", delete=False)  # noqa: SIM115 - until the end
                self._file.write(self._data)
                self._data = bytearray()
            self._file.write(part)
            self._file.flush()
        except OSError as error:
            folder = f"{tempfile.gettempdir()} (TMPDIR)"
            raise OSError(error.errno, f"cannot be collected in {folder}: {error.strerror}", self._uri) from error

    def complete(self) -> None:
        if self._file is not None:
            self._file.close()
        with translated(self._uri):
            if _is_inherited(self._fs, "pipe_file" if self._file is None else "put_file"):
                self._copy()
            elif self._file is None:
                self._fs.pipe_file(self._path, bytes(self._data))
            else:
                self._fs.put_file(self._file.name, self._path)
        self.abort()

    def _copy(self) -> None:
        """Does what fsspec's own `pipe_file` and `put_file` do, but makes no object if that fails in the middle."""
        target = self._fs.open(self._path, "wb", block_size=PART_BYTES)
        try:
            with io.BytesIO(self._data) if self._file is None else open(self._file.name, "rb") as source:
                while data := source.read(PART_BYTES):
                    target.write(data)
        except BaseException:
            _abandon(target)
            raise
        target.close()

    def abort(self) -> None:
        self._data = bytearray()
        if self._file is not None:
            with contextlib.suppress(OSError):  # closing writes what is buffered, and the disk may be full
                self._file.close()
            with contextlib.suppress(OSError):
                os.unlink(self._file.name)


class MultipartUpload(Upload):
    """An object that is put by one call if it is small, and else uploaded in parts that are completed at the end.

    Args:
        size_bytes: size of a part in bytes. All parts but the last have it, as some S3 servers demand.
    """

    def __init__(self, fs: Any, path: str, uri: str, *, size_bytes: int) -> None:
        super().__init__(fs, path, uri)
        self._part_bytes = size_bytes
        self._first = b""
        self._file: Any = None

    def send(self, part: memoryview) -> None:
        if self._file is None and not self._first and len(part) <= self._part_bytes:
            self._first = bytes(part)
            return
        with translated(self._uri):
            if self._file is None:
                self._file = self._fs.open(self._path, "wb", block_size=self._part_bytes, autocommit=False)
                self._file.write(self._first)
                self._first = b""
            self._file.write(bytes(part))

    def complete(self) -> None:
        with translated(self._uri):
            if self._file is None:
                self._fs.pipe_file(self._path, self._first)
            else:
                self._file.close()  # uploads the last part; without autocommit it completes nothing
                self._file.commit()

    def abort(self) -> None:
        self._first = b""
        if self._file is not None:
            _abandon(self._file)


class RenameUpload(Upload):
    """An object on a file server: written under a temporary name in the same folder, then renamed.

    Args:
        temporary: the temporary path.
    """

    def __init__(self, fs: Any, path: str, uri: str, *, temporary: str) -> None:
        super().__init__(fs, path, uri)
        self._temporary = temporary
        self._file: Any = None

    def send(self, part: memoryview) -> None:
        with translated(self._uri):
            self._open().write(bytes(part))

    def _open(self) -> Any:
        if self._file is None:
            folder = self._path.rpartition("/")[0]
            if folder.strip("/"):
                self._fs.makedirs(folder, exist_ok=True)
            self._file = self._fs.open(self._temporary, "wb")
        return self._file

    def complete(self) -> None:
        with translated(self._uri):
            self._open().close()
            try:
                self._fs.mv(self._temporary, self._path)
            except OSError:
                if not self._fs.isfile(self._path):
                    raise
                # Some servers do not rename over a file. For a moment there is none, but never half of one.
                self._fs.rm_file(self._path)
                self._fs.mv(self._temporary, self._path)

    def abort(self) -> None:
        if self._file is not None:
            _abandon(self._file)
            with contextlib.suppress(Exception):
                self._fs.rm_file(self._temporary)


def _is_inherited(fs: Any, method: str) -> bool:
    """Whether a file system has fsspec's own way of putting an object: open it, write, and close it in any case."""
    from fsspec import AbstractFileSystem

    return not fs.async_impl and getattr(type(fs), method) is getattr(AbstractFileSystem, method)


def _abandon(file: Any) -> None:
    """Makes one of fsspec's files forget its content, so that neither closing nor collecting it uploads anything."""
    from fsspec.spec import AbstractBufferedFile

    with contextlib.suppress(Exception):
        discard = getattr(file, "discard", None)
        if discard is not None:
            discard()
    if isinstance(file, AbstractBufferedFile):
        file.closed = True
        file.buffer = None
        return
    with contextlib.suppress(Exception):
        file.close()
