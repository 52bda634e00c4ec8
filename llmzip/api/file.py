"""File objects over archives, and `open`, after PEP 784 and the gzip module; no policy of their own.

One object serves one operation at a time.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, cast, overload

from ..codec.reader import FrameDecoder
from ..errors import LLMZipError
from ..format import reading
from ..settings import DEFAULT_LEVEL, DEFAULT_MODEL, check_type
from ..system.streams import Readable, Writable, flush_all, write_all
from .incremental import Buffer, Compressor, Model, as_bytes, decompress_settings, refuse_copies

File = str | bytes | os.PathLike[str] | Readable | Writable
_BinaryMode = Literal["r", "rb", "w", "wb", "x", "xb", "a", "ab"]
_TextMode = Literal["rt", "wt", "xt", "at"]


class LLMZipFile(io.BufferedIOBase):
    """A file that reads or writes archives; see `open`.

    Reading goes through all archives of the file. Seeking back starts anew; seeking forward decodes and drops.
    Non-blocking files are waited for.
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
    ) -> None:
        kinds = {"r": "rb", "rb": "rb", "w": "wb", "wb": "wb", "x": "xb", "xb": "xb", "a": "ab", "ab": "ab"}
        self._file: BinaryIO | None = None  # close() must work even if what follows raises
        self._compressor: Compressor | None = None
        self._poses = False
        check_type("mode", mode, str)
        if mode not in kinds:
            raise ValueError(f"Invalid mode: {mode!r}")
        raw_mode = kinds[mode]
        self._writing = raw_mode != "rb"
        if not self._writing and level is not None:
            raise TypeError("level is for writing; an archive knows how it was made")
        if self._writing:
            self._compressor = Compressor(
                level=DEFAULT_LEVEL if level is None else level,
                model=DEFAULT_MODEL if model is None else model,
                device=device,
                prompt=prompt,
            )
        self._settings = decompress_settings(model, device, prompt)
        self._owned = isinstance(file, (str, bytes, os.PathLike))
        if isinstance(file, (str, bytes, os.PathLike)):
            self._file = cast("BinaryIO", builtins.open(file, raw_mode))  # noqa: SIM115 - closed by close()
        elif hasattr(file, "write" if self._writing else "read"):
            self._file = cast("BinaryIO", file)
        else:
            raise TypeError("file must be a path, or a file object with a read or write method")
        self._position = 0
        self._start = self._file.tell() if not self._writing and self._seekable_below() else 0
        self._continues = raw_mode == "ab" and self._owned and self._file.tell() > 0
        self._restart()

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
        return self._poses or (not self._writing and self._seekable_below())

    def fileno(self) -> int:
        return self._open().fileno()

    def close(self) -> None:
        """Writes the rest of the archive; closes the file if this object opened it. May be called twice."""
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
        """Makes all that was written so far readable for whoever has the file: ends the frame and hands it on.

        A frame of its own costs some 10 bytes, and what comes later is compressed without what came before: so seldom,
        or not at all. For a file that is read it does nothing.

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
        """Takes bytes of the text; returns how many."""
        file = self._open()
        if self._compressor is None:
            raise io.UnsupportedOperation("write: the file is open for reading")
        raw = as_bytes(data)
        write_all(file, self._compressor.compress(raw))
        self._position += len(raw)
        return len(raw)

    # -- reading

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes of the text, all of it for a negative size; b"" at the end.

        Raises:
            TruncatedError (an EOFError), CorruptError, FormatError, ModelError.
        """
        self._reading()
        parts: list[bytes] = []
        left = -1 if size is None or size < 0 else size
        # Who asks for everything must not take a part for it.
        while left and (self._fill() if left < 0 else self._fill_behind(parts)):
            part = self._take(left)
            parts.append(part)
            left -= len(part) if left > 0 else 0
        return b"".join(parts)

    def read1(self, size: int = -1) -> bytes:
        """Up to `size` bytes, of one frame at most."""
        self._reading()
        return self._take(size) if self._fill() else b""

    def readinto(self, buffer: Any) -> int:
        """Reads into a writable buffer; returns how many bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readinto1(self, buffer: Any) -> int:
        """As `readinto`, of one frame at most."""
        view = memoryview(buffer).cast("B")
        data = self.read1(len(view))
        view[: len(data)] = data
        return len(data)

    def peek(self, size: int = -1) -> bytes:
        """Some of the bytes that come next, without moving on; b"" only at the end."""
        self._reading()
        return bytes(self._text[self._at :]) if self._fill() else b""

    def readline(self, size: int | None = -1) -> bytes:
        """The next line with its end, or `size` bytes of it."""
        self._reading()
        parts: list[bytes] = []
        left = -1 if size is None or size < 0 else size
        while left and self._fill_behind(parts):
            end = self._text.find(b"\n", self._at) + 1 or len(self._text)
            part = self._take(end - self._at if left < 0 else min(left, end - self._at))
            parts.append(part)
            left -= len(part) if left > 0 else 0
            if part.endswith(b"\n"):
                break
        return b"".join(parts)

    def tell(self) -> int:
        """Position in the text, in bytes; in an appended file counted from where it was opened."""
        self._open()
        return int(self._continues) if self._poses else self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves in the text; returns the new position, at most the text's end."""
        self._reading("seek")
        if not self._seekable_below():
            raise io.UnsupportedOperation("seek: the underlying file cannot seek")
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            while self._fill():
                self._take(-1)
            offset += self._position
        elif whence != io.SEEK_SET:
            raise ValueError(f"Invalid value for whence: {whence!r}")
        if offset < 0:
            raise ValueError(f"negative seek position {offset}")
        if offset < self._position:
            self._open().seek(self._start)
            self._position = 0
            self._restart()
        while self._position < offset and self._fill():
            self._take(offset - self._position)
        return self._position

    # -- helpers

    @contextlib.contextmanager
    def posing_as_seekable(self) -> Iterator[None]:
        """For the constructor of io.TextIOWrapper, which asks where it stands to know whether a byte order mark is due.

        Where it cannot seek it writes none at all (python/cpython#80485).
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

    def _reading(self, what: str = "read") -> None:
        self._open()
        if self._writing:
            raise io.UnsupportedOperation(f"{what}: the file is open for writing")

    def _seekable_below(self) -> bool:
        file = self._open()
        return bool(getattr(file, "seekable", lambda: False)())

    def _restart(self) -> None:
        self._text, self._at = b"", 0
        self._error: Exception | None = None
        self._frames: Iterator[bytes] = iter(())
        if not self._writing:
            decoder = FrameDecoder(self._settings)
            self._frames = (decoder.decode(frame) for frame in reading.read_archives(self._open()))

    def _fill(self) -> bool:
        """Makes sure that text is at hand; False at the end. A damaged file raises here again and again."""
        while self._at >= len(self._text):
            if self._error is not None:
                raise self._error
            try:
                text = next(self._frames, None)
            except Exception as error:
                self._error = error
                raise
            if text is None:
                return False
            self._text, self._at = text, 0
        return True

    def _fill_behind(self, parts: list[bytes]) -> bool:
        """As `_fill`, but what was read before an error is handed out first; the next call raises the error."""
        try:
            return self._fill()
        except LLMZipError:
            if parts:
                return False
            raise

    def _take(self, size: int) -> bytes:
        end = len(self._text) if size < 0 else min(len(self._text), self._at + size)
        part = self._text[self._at : end]
        self._at = end
        self._position += len(part)
        return part


class _TextFile(io.TextIOWrapper):
    """A text file over an LLMZipFile.

    Closing ends the archive, so the flush that comes with it must not end a frame first. Nothing is held back here
    (`write_through`), so nothing gets lost by leaving that flush out.
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
        cast("LLMZipFile", self.buffer).__del__()  # says so if it was not closed
        super().__del__()


@overload
def open(
    file: File, /, mode: _BinaryMode = "rb", *, level: int | None = None, model: Model | None = None,
    device: str = "auto", prompt: Buffer = b"", encoding: None = None, errors: None = None, newline: None = None,
) -> LLMZipFile: ...  # fmt: skip


@overload
def open(
    file: File, /, mode: _TextMode, *, level: int | None = None, model: Model | None = None,
    device: str = "auto", prompt: Buffer = b"", encoding: str | None = None, errors: str | None = None,
    newline: str | None = None,
) -> io.TextIOWrapper: ...  # fmt: skip


@overload
def open(
    file: File, /, mode: str, *, level: int | None = None, model: Model | None = None,
    device: str = "auto", prompt: Buffer = b"", encoding: str | None = None, errors: str | None = None,
    newline: str | None = None,
) -> LLMZipFile | io.TextIOWrapper: ...  # fmt: skip


def open(  # as in gzip, lzma and compression.zstd
    file: File,
    /,
    mode: str = "rb",
    *,
    level: int | None = None,
    model: Model | None = None,
    device: str = "auto",
    prompt: Buffer = b"",
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> LLMZipFile | io.TextIOWrapper:
    """Opens a compressed file in binary ("rb", "wb", "xb", "ab") or text mode ("rt", "wt", "xt", "at").

    Args:
        file: a path, or a binary file object, which is not closed.
        mode: as above; "r", "w", "x" and "a" are binary.
        level: 1 to 9, for writing only.
        model: an embedded model's name or a folder; for reading only where the archive needs a user's model.
        device: "auto", "cpu", "cuda" or "cuda:N".
        prompt: a text that both sides know.
        encoding, errors, newline: for text modes only, as for io.TextIOWrapper.

    Raises:
        ValueError: a bad mode, or text arguments in binary mode.
        TypeError: level when reading, or an argument of a wrong type.
    """
    check_type("mode", mode, str)
    text = "t" in mode
    if text and "b" in mode:
        raise ValueError(f"Invalid mode: {mode!r}")
    if not text:
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                raise ValueError(f"Argument {name!r} not supported in binary mode")
    binary = LLMZipFile(file, mode.replace("t", "", 1), level=level, model=model, device=device, prompt=prompt)
    if not text:
        return binary
    try:
        return _TextFile(binary, encoding, errors, newline)
    except BaseException:
        binary.close()
        raise
