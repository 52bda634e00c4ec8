"""The Python API after PEP 784: LLMZipFile, open, Compressor, Decompressor, one-shot calls; no policy of its own.

One object serves one operation at a time. Models stay in memory between calls.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, cast

from . import compiledlib, container
from .codec import ArchiveWriter, FrameDecoder
from .container import ArchiveParser, Frame
from .errors import LLMZipError, ResourceError
from .listing import ArchiveInfo, read_info
from .settings import DEFAULT_LEVEL, DEFAULT_MODEL, CompressSettings, DecompressSettings, EngineSettings

Buffer = bytes | bytearray | memoryview
Model = str | os.PathLike[str]


class Compressor:
    """Compresses data that arrives in pieces into one archive.

    Args:
        level: 1 (fastest) to 9 (smallest).
        model: an embedded model's name, a folder with a checkpoint, or the id of a model of the Hub that is here.
        device: "auto", "cpu", "cuda" or "cuda:N".
        prompt: a text that whoever decompresses has too; model and mixer read it first.
        arithmetic: "exact", or "float" for models that cannot run exactly.
    """

    FLUSH_FRAME: Literal[1] = 1
    FLUSH_FINISH: Literal[2] = 2

    def __init__(
        self,
        *,
        level: int = DEFAULT_LEVEL,
        model: Model = DEFAULT_MODEL,
        device: str = "auto",
        prompt: Buffer = b"",
        arithmetic: str = "exact",
    ) -> None:
        compiledlib.warn_if_missing()
        engine = EngineSettings(device=device)
        self._writer: ArchiveWriter | None = ArchiveWriter(
            CompressSettings(level=level, model=model, engine=engine, arithmetic=arithmetic, prompt=_as_bytes(prompt))
        )

    def compress(self, data: Buffer) -> bytes:
        """Takes more of the text; returns a part of the archive, often b"".

        Raises:
            ValueError: after `flush()`.
        """
        return self._open().write(_as_bytes(data))

    def flush(self, mode: int = FLUSH_FINISH) -> bytes:
        """Ends the archive, or with FLUSH_FRAME only the frame, and returns what is left of it.

        Raises:
            ValueError: after `flush()`, or for another mode.
        """
        writer = self._open()
        if mode == self.FLUSH_FRAME:
            return writer.flush_frame()
        if mode != self.FLUSH_FINISH:
            raise ValueError(f"mode must be FLUSH_FRAME or FLUSH_FINISH, not {mode!r}")
        self._writer = None
        return writer.finish()

    def _open(self) -> ArchiveWriter:
        if self._writer is None:
            raise ValueError("this compressor's archive was finished by flush(); one object makes one archive")
        return self._writer


class Decompressor:
    """Decompresses one archive that arrives in pieces.

    Args:
        model: the folder of the model that the archive names, if it is not an embedded one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        prompt: the text that the archive was made with, if there was one.
    """

    def __init__(self, *, model: Model | None = None, device: str = "auto", prompt: Buffer = b"") -> None:
        self._frames = FrameDecoder(_decompress_settings(model, device, prompt))
        self._steps = ArchiveParser().steps()
        self._input = bytearray()
        self._wanted = self._advance(None)
        self._output = bytearray()
        self._unused = b""
        self._error: Exception | None = None

    @property
    def eof(self) -> bool:
        """Whether the archive's end was reached and all its text handed out."""
        return self._wanted is None and not self._output

    @property
    def unused_data(self) -> bytes:
        """Bytes after the archive's end; b"" before."""
        return self._unused if self._wanted is None else b""

    @property
    def needs_input(self) -> bool:
        """Whether `decompress` can give more only with more input."""
        return not self._output and self._wanted is not None and len(self._input) < self._wanted

    def decompress(self, data: Buffer, max_length: int = -1) -> bytes:
        """Takes more of the archive and returns text that has passed its checksum.

        Args:
            data: the next bytes; b"" to get more of what max_length held back.
            max_length: most bytes to return; -1 for no limit. A frame's text is held in memory in any case.

        Raises:
            EOFError: the archive had ended already.
            LLMZipError: as for `decompress`.
        """
        if self._error is not None:
            raise self._error  # a damaged archive stays damaged, and never looks as if it had ended well
        if self.eof:
            raise EOFError("the archive has ended; unused_data holds what came after it")
        self._input += _as_bytes(data)
        # With a limit, what is held back is handed out before another frame is decoded.
        while self._wanted is not None and len(self._input) >= self._wanted and not (self._output and max_length >= 0):
            piece = bytes(self._input[: self._wanted])
            del self._input[: self._wanted]
            self._wanted = self._advance(piece)
        if self._wanted is None and self._input:
            self._unused += bytes(self._input)
            self._input.clear()
        size = len(self._output) if max_length < 0 else min(max_length, len(self._output))
        out = bytes(self._output[:size])
        del self._output[:size]
        return out

    def _advance(self, answer: bytes | None) -> int | None:
        """Feeds the parser; returns how many bytes it wants next, or None at the end."""
        try:
            request = self._steps.send(answer)
            while isinstance(request, Frame):
                self._output += self._frames.decode(request)
                request = next(self._steps)
        except StopIteration:
            return None
        except Exception as error:
            self._error = error
            raise
        return request if isinstance(request, int) else 0


class LLMZipFile(io.BufferedIOBase):
    """A file that reads or writes archives; see `open`.

    Reading goes through all archives of the file. Seeking back starts anew; seeking forward decodes and drops.
    """

    def __init__(
        self,
        file: str | bytes | os.PathLike[str] | BinaryIO,
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
        if mode not in kinds:
            raise ValueError(f"Invalid mode: {mode!r}")
        raw_mode = kinds[mode]
        self._writing = raw_mode != "rb"
        if not self._writing and level is not None:
            raise TypeError("level is for writing; an archive knows how it was made")
        self._compressor: Compressor | None = None
        if self._writing:
            self._compressor = Compressor(
                level=DEFAULT_LEVEL if level is None else level,
                model=DEFAULT_MODEL if model is None else model,
                device=device,
                prompt=prompt,
            )
        self._settings = _decompress_settings(model, device, prompt)
        self._owned = isinstance(file, (str, bytes, os.PathLike))
        if isinstance(file, (str, bytes, os.PathLike)):
            self._file = cast("BinaryIO", builtins.open(file, raw_mode))  # noqa: SIM115 - closed by close()
        elif hasattr(file, "write" if self._writing else "read"):
            self._file = file
        else:
            raise TypeError("file must be a path, or a file object with a read or write method")
        self._position = 0
        self._start = self._file.tell() if not self._writing and self._seekable_below() else 0
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

    def readable(self) -> bool:
        self._open()
        return not self._writing

    def writable(self) -> bool:
        self._open()
        return self._writing

    def seekable(self) -> bool:
        self._open()
        return not self._writing and self._seekable_below()

    def fileno(self) -> int:
        return self._open().fileno()

    def close(self) -> None:
        """Writes the rest of the archive; closes the file if this object opened it. May be called twice."""
        if self._file is None:
            return
        try:
            if self._compressor is not None:
                compressor, self._compressor = self._compressor, None
                self._put(compressor.flush())
        finally:
            file, self._file = self._file, None
            if self._owned:
                file.close()

    # -- writing

    def write(self, data: Any) -> int:
        """Takes bytes of the text; returns how many."""
        self._open()
        if self._compressor is None:
            raise io.UnsupportedOperation("write: the file is open for reading")
        raw = _as_bytes(data)
        self._put(self._compressor.compress(raw))
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
        """Position in the text, in bytes."""
        self._open()
        return self._position

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

    def _open(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("I/O operation on closed file")
        return self._file

    def _put(self, data: bytes) -> None:
        """Writes all of it: raw files may take less than they are given."""
        file = self._open()
        while data:
            count = file.write(data)
            data = data[len(data) if count is None else count :]

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
            self._frames = (decoder.decode(frame) for frame in container.read_archives(self._open()))

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


def open(  # as in gzip, lzma and compression.zstd
    file: str | bytes | os.PathLike[str] | BinaryIO,
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
        ValueError: a bad mode, or text arguments in binary mode. TypeError: level when reading.
    """
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
    return io.TextIOWrapper(binary, encoding, errors, newline)


def compress(
    data: Buffer,
    *,
    level: int = DEFAULT_LEVEL,
    model: Model = DEFAULT_MODEL,
    device: str = "auto",
    prompt: Buffer = b"",
    arithmetic: str = "exact",
) -> bytes:
    """Compresses bytes into one archive.

    Args:
        data: any bytes-like object; text must be encoded by the caller.
        level: 1 (fastest) to 9 (smallest).
        model: an embedded model's name, a folder with a checkpoint, or the id of a model of the Hub that is here.
        device: "auto", "cpu", "cuda" or "cuda:N"; it changes no bit.
        prompt: a text that whoever decompresses has too; model and mixer read it first.
        arithmetic: "exact", or "float" for models that cannot run exactly: their archives decode only on the same
            hardware with the same software.
    """
    compressor = Compressor(level=level, model=model, device=device, prompt=prompt, arithmetic=arithmetic)
    return compressor.compress(data) + compressor.flush()


def decompress(
    data: Buffer,
    *,
    model: Model | None = None,
    device: str = "auto",
    max_output_size: int | None = None,
    prompt: Buffer = b"",
) -> bytes:
    """Decompresses one archive or several, one after the other.

    Args:
        data: a bytes-like object.
        model: the folder of the model that the archive names, if it is not an embedded one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        max_output_size: refuse to give more bytes than this, known from the headers before anything is decoded.
        prompt: the text that the archive was made with, if there was one.

    Raises:
        ResourceError: more than max_output_size.
        FormatError, CorruptError, TruncatedError, ModelError, EngineError, TokenizerError.
    """
    raw = _as_bytes(data)
    decoder = FrameDecoder(_decompress_settings(model, device, prompt))
    parts, size = [], 0
    for frame in container.read_archives(io.BytesIO(raw)):
        size += frame.header.original_bytes
        if max_output_size is not None and size > max_output_size:
            raise ResourceError(f"the text is larger than max_output_size, {max_output_size} bytes")
        parts.append(decoder.decode(frame))
    return b"".join(parts)


def info(source: Buffer | str | os.PathLike[str] | BinaryIO) -> ArchiveInfo:
    """What the headers of an archive tell; loads no model and decodes nothing.

    Args:
        source: the archive's bytes, its path, or a binary file object.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return read_info(io.BytesIO(bytes(source)))
    if isinstance(source, (str, os.PathLike)):
        with builtins.open(source, "rb") as file:
            return read_info(file)
    return read_info(source)


def _decompress_settings(model: Model | None, device: str, prompt: Buffer) -> DecompressSettings:
    compiledlib.warn_if_missing()
    return DecompressSettings(model=model, engine=EngineSettings(device=device), prompt=_as_bytes(prompt))


def _as_bytes(data: Buffer) -> bytes:
    if isinstance(data, str):
        raise TypeError("a bytes-like object is required, not 'str': encode the text first")
    return data if isinstance(data, bytes) else bytes(memoryview(data))
