"""File objects over archives, and `open`, after PEP 784 and the gzip module.

Use each object from one thread at a time.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, TypeVar, cast, overload

from ..codec.writer import Scope
from ..errors import FormatError, LLMZipError
from ..format.headers import MAGIC
from ..format.reading import Position, read_archives, version_refusal
from ..settings import DEFAULT_LEVEL, DEFAULT_MODEL, check_type
from ..system.streams import Readable, Writable, flush_all, write_all
from .incremental import Buffer, Compressor, Model, as_bytes, decompress_settings, refuse_copies
from .rawreader import RawReader

File = str | bytes | os.PathLike[str] | Readable | Writable
_BinaryMode = Literal["r", "rb", "w", "wb", "x", "xb", "a", "ab"]
_TextMode = Literal["rt", "wt", "xt", "at"]
_FILE_MODES = ("r", "rb", "w", "wb", "x", "xb", "a", "ab")
_ResultT = TypeVar("_ResultT", bytes, int)


class LLMZipFile(io.BufferedIOBase):
    """A file that reads or writes archives; see `open` for its arguments.

    Reading continues through all archives of the file. Seeking back decodes from the start again; seeking forward
    decodes what is between. If a non-blocking file has no data yet, the call waits for it.
    """

    FLUSH_FRAME: Literal[1] = Compressor.FLUSH_FRAME

    __getstate__ = refuse_copies

    def __init__(
        self,
        file: File,
        /,
        mode: str = "r",
        *,
        level: int | None = None,
        model: Model | None = None,
        device: str = "auto",
        prompt: Buffer = b"",
        frame_bytes: int | None = None,
        with_model: bool = False,
    ) -> None:
        self._file: BinaryIO | None = None  # close() must work even if what follows raises
        self._compressor: Compressor | None = None
        self._buffered: io.BufferedReader[RawReader] | None = None
        self._num_written = 0
        self._poses = False
        check_type("mode", mode, str)
        if mode not in _FILE_MODES:
            raise ValueError(f"Invalid mode: {mode!r}")
        file_mode = mode[0] + "b"
        self._writing = file_mode != "rb"
        if self._writing:
            self._compressor = Compressor(
                level=DEFAULT_LEVEL if level is None else level,
                model=DEFAULT_MODEL if model is None else model,
                device=device,
                prompt=prompt,
                frame_bytes=frame_bytes,
                with_model=with_model,
                _scope=_scope_of(file) if with_model and file_mode == "ab" else None,
            )
        elif level is not None or frame_bytes is not None or with_model:
            name = "level" if level is not None else "frame_bytes" if frame_bytes is not None else "with_model"
            raise TypeError(f"{name} is for writing; an archive records how it was made")
        settings = decompress_settings(model, device, prompt)
        self._owned = isinstance(file, (str, bytes, os.PathLike))
        if isinstance(file, (str, bytes, os.PathLike)):
            if file_mode == "ab":
                _check_version(file)
            self._file = cast("BinaryIO", builtins.open(file, file_mode))  # noqa: SIM115 - closed by close()
        elif hasattr(file, "write" if self._writing else "read"):
            self._file = cast("BinaryIO", file)
        else:
            raise TypeError("file must be a path, or a file object with a read or write method")
        self._continues = file_mode == "ab" and self._owned and self._file.tell() > 0
        if not self._writing:
            self._buffered = io.BufferedReader(RawReader(self._file, settings))

    # -- state

    @property
    def name(self) -> Any:
        """The underlying file's name."""
        return self._open().name

    @property
    def mode(self) -> str:
        """ "rb" or "wb"."""
        return "wb" if self._writing else "rb"

    @property
    def closed(self) -> bool:
        return self._file is None

    def __del__(self) -> None:
        if self._file is not None and (self._writing or self._owned):
            warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)
        super().__del__()  # closes it

    def readable(self) -> bool:
        self._open()
        return not self._writing

    def writable(self) -> bool:
        self._open()
        return self._writing

    def seekable(self) -> bool:
        self._open()
        return self._poses or (self._buffered is not None and self._buffered.raw.seekable())

    def fileno(self) -> int:
        return self._open().fileno()

    def close(self) -> None:
        """Writes the rest of the archive, and closes the file if this object opened it. May be called twice."""
        if self._file is None:
            return
        try:
            if self._compressor is not None:
                compressor, self._compressor = self._compressor, None
                write_all(self._file, compressor.flush())
        finally:
            file, self._file = self._file, None
            if self._owned:
                file.close()

    # -- writing

    def flush(self, mode: int = FLUSH_FRAME) -> None:
        """Ends the frame, so that everything written so far can be read by whoever has the file.

        Each frame costs about 10 bytes, and later text is compressed without the frames before it: flush seldom or not
        at all. In a file opened for reading this does nothing.

        Raises:
            ValueError: the file is closed, or the mode is not FLUSH_FRAME.
        """
        file = self._open()
        if mode != self.FLUSH_FRAME:
            raise ValueError(f"mode must be FLUSH_FRAME, not {mode!r}; close() ends the archive")
        if self._compressor is not None:
            write_all(file, self._compressor.flush(Compressor.FLUSH_FRAME))
            flush_all(file)

    def write(self, data: Any) -> int:
        """Compresses more bytes of the text; returns their number."""
        file = self._open()
        if self._compressor is None:
            raise io.UnsupportedOperation("write: the file is open for reading")
        raw = as_bytes(data)
        write_all(file, self._compressor.compress(raw))
        self._num_written += len(raw)
        return len(raw)

    # -- reading: a call that meets an error hands out the text before it, and the next call raises

    def read(self, size: int | None = -1) -> bytes:
        """Reads up to `size` bytes of the text, or all of it if `size` is negative; b"" at the end.

        Raises:
            TruncatedError (an EOFError), CorruptError, FormatError, ModelError: the text cannot be read any further.
                Without a size this is raised at once, so that a part never looks like all of the text.
        """
        wanted = -1 if size is None or size < 0 else size
        return self._unless_failed(self._reader("read").read(wanted), wanted)

    def read1(self, size: int = -1) -> bytes:
        """Reads up to `size` bytes, from at most one frame."""
        return self._unless_failed(self._reader("read").read1(size), size)

    def readinto(self, buffer: Any) -> int:
        """Reads into a writable buffer; returns the number of bytes."""
        return self._unless_failed(self._reader("read").readinto(buffer), memoryview(buffer).nbytes)

    def readinto1(self, buffer: Any) -> int:
        """Reads into a writable buffer from at most one frame; returns the number of bytes."""
        return self._unless_failed(self._reader("read").readinto1(buffer), memoryview(buffer).nbytes)

    def peek(self, size: int = -1) -> bytes:
        """Returns some of the next bytes without moving on; b"" only at the end."""
        return self._unless_failed(self._reader("read").peek(size))

    def readline(self, size: int | None = -1) -> bytes:
        """Reads the next line with its end, or up to `size` bytes of it."""
        return self._unless_failed(self._reader("read").readline(size), size)

    def tell(self) -> int:
        """Returns the position in the text in bytes; in an appended file it counts from where the file was opened."""
        self._open()
        if self._poses:
            return int(self._continues)
        return self._num_written if self._buffered is None else self._buffered.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves in the text; returns the new position, at most the text's end."""
        reader = self._reader("seek")
        if not reader.raw.seekable():
            raise io.UnsupportedOperation("seek: the underlying file cannot seek")
        target = offset + (reader.tell() if whence == io.SEEK_CUR else 0)
        position = reader.seek(offset, whence)
        if reader.raw.error is not None and (position < target or whence == io.SEEK_END):
            raise reader.raw.error
        return position

    # -- helpers

    @contextlib.contextmanager
    def posing_as_seekable(self) -> Iterator[None]:
        """Lets the constructor of io.TextIOWrapper ask for the position, on which a byte order mark depends.

        It writes none to files that cannot seek (python/cpython#80485).
        """
        self._poses = self._writing
        try:
            yield
        finally:
            self._poses = False

    def _open(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("I/O operation on closed file")
        return self._file

    def _reader(self, operation: str) -> io.BufferedReader[RawReader]:
        self._open()
        if self._buffered is None:
            raise io.UnsupportedOperation(f"{operation}: the file is open for writing")
        return self._buffered

    def _unless_failed(self, result: _ResultT, size: int | None = -1) -> _ResultT:
        """Returns what the buffered reader gave; raises the raw file's error if that is nothing.

        Args:
            result: text, or its number of bytes; None and 0 bytes stand for nothing.
            size: the number of bytes asked for; whoever asks for 0 gets no error.
        """
        if not result and size != 0 and self._buffered is not None and self._buffered.raw.error is not None:
            raise self._buffered.raw.error
        return result


def _check_version(file: str | bytes | os.PathLike[str]) -> None:
    """Refuses to append to an archive of another format version: no llmzip would read both.

    Raises:
        FormatError: the file begins with such an archive.
    """
    head = b""
    # What cannot be read may still be appended to; a FIFO must not be read at all.
    with contextlib.suppress(OSError):
        if os.path.isfile(file):
            with builtins.open(file, "rb") as existing:
                head = existing.read(len(MAGIC) + 1)
    if len(head) > len(MAGIC) and head.startswith(MAGIC):
        refusal = version_refusal(head[-1])
        if refusal is not None:
            raise FormatError(f"cannot append to {os.fsdecode(file)}: {refusal}")


def _scope_of(file: object) -> Scope:
    """Returns what a file carries at its end, where an archive will be appended; nothing if that cannot be read."""
    position = Position()
    if isinstance(file, (str, bytes, os.PathLike)) and os.path.isfile(file):
        with contextlib.suppress(OSError, LLMZipError), builtins.open(file, "rb") as existing:
            for _ in read_archives(existing, skip_payloads=True, skip_models=True, position=position):
                pass
            return Scope(None if position.parser is None else position.parser.carried)
    return Scope()


class _TextFile(io.TextIOWrapper):
    """A text file over an LLMZipFile.

    Closing ends the archive, so the flush that belongs to it must not end a frame first. This object buffers nothing
    (`write_through`), so skipping that flush loses nothing.
    """

    def __init__(self, binary: LLMZipFile, encoding: str | None, errors: str | None, newline: str | None) -> None:
        self._closing = False
        with binary.posing_as_seekable():
            super().__init__(binary, encoding, errors, newline, write_through=True)

    __getstate__ = refuse_copies

    def flush(self) -> None:
        if not self._closing:
            super().flush()

    def close(self) -> None:
        self._closing = True
        super().close()

    def __del__(self) -> None:
        cast("LLMZipFile", self.buffer).__del__()  # warns if it was not closed
        super().__del__()


@overload
def open(
    file: File, /, mode: _BinaryMode = "rb", *, level: int | None = None, model: Model | None = None,
    device: str = "auto", prompt: Buffer = b"", frame_bytes: int | None = None, with_model: bool = False,
    encoding: None = None, errors: None = None, newline: None = None,
) -> LLMZipFile: ...  # fmt: skip


@overload
def open(
    file: File, /, mode: _TextMode, *, level: int | None = None, model: Model | None = None,
    device: str = "auto", prompt: Buffer = b"", frame_bytes: int | None = None, with_model: bool = False,
    encoding: str | None = None,
    errors: str | None = None, newline: str | None = None,
) -> io.TextIOWrapper: ...  # fmt: skip


@overload
def open(
    file: File, /, mode: str, *, level: int | None = None, model: Model | None = None,
    device: str = "auto", prompt: Buffer = b"", frame_bytes: int | None = None, with_model: bool = False,
    encoding: str | None = None,
    errors: str | None = None, newline: str | None = None,
) -> LLMZipFile | io.TextIOWrapper: ...  # fmt: skip


def open(  # the parameters of gzip.open, and the settings
    file: File,
    /,
    mode: str = "rb",
    *,
    level: int | None = None,
    model: Model | None = None,
    device: str = "auto",
    prompt: Buffer = b"",
    frame_bytes: int | None = None,
    with_model: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> LLMZipFile | io.TextIOWrapper:
    """Opens a compressed file in binary ("rb", "wb", "xb", "ab") or text mode ("rt", "wt", "xt", "at").

    Args:
        file: a path, or a binary file object, which is not closed.
        mode: as above; "r", "w", "x" and "a" are binary.
        level, model, device, prompt: as for `compress` when writing, as for `decompress` when reading. Reading takes
            no level.
        frame_bytes, with_model: as for `compress`; for writing only. A model that a file carries already is not
            appended again.
        encoding, errors, newline: as for io.TextIOWrapper; for text modes only.

    Raises:
        ValueError: an unknown mode, or arguments of text modes in a binary mode.
        TypeError: a level or frame_bytes when reading, or an argument of a wrong type.
        FormatError: the file to append to begins with an archive of another format version.
        OSError: the file cannot be opened.
    """
    check_type("mode", mode, str)
    is_text = "t" in mode
    if is_text and "b" in mode:
        raise ValueError(f"Invalid mode: {mode!r}")
    if not is_text:
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                raise ValueError(f"Argument {name!r} not supported in binary mode")
    binary = LLMZipFile(
        file,
        mode.replace("t", "", 1),
        level=level,
        model=model,
        device=device,
        prompt=prompt,
        frame_bytes=frame_bytes,
        with_model=with_model,
    )
    if not is_text:
        return binary
    try:
        return _TextFile(binary, encoding, errors, newline)
    except BaseException:
        binary.close()
        raise
