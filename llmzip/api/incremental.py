"""Compressor and Decompressor after PEP 784: one archive in pieces, in memory. They know nothing of files.

Use each object from one thread at a time. Models stay in memory between calls.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from ..codec.lines import LineCheck
from ..codec.reader import FrameDecoder
from ..codec.writer import ArchiveWriter, Scope
from ..format.headers import Frame
from ..format.reading import ArchiveParser
from ..settings import (  # fmt: skip
    DEFAULT_LEVEL,
    DEFAULT_MODEL,
    CompressSettings,
    DecompressSettings,
    EngineSettings,
    check_type,
)
from ..system import libraries

Buffer = bytes | bytearray | memoryview
Model = str | os.PathLike[str]


def refuse_copies(self: object) -> Any:
    """Refuses copying as `__getstate__`: two objects that continue one archive would write the same bytes twice."""
    raise TypeError(f"cannot copy or pickle a {type(self).__name__} object")


class Compressor:
    """A compressor of data that arrives in pieces into one archive; see `compress` for its arguments."""

    FLUSH_FRAME: Literal[1] = 1
    FLUSH_FINISH: Literal[2] = 2

    __getstate__ = refuse_copies

    def __init__(
        self,
        *,
        level: int = DEFAULT_LEVEL,
        model: Model = DEFAULT_MODEL,
        device: str = "auto",
        prompt: Buffer = b"",
        arithmetic: str = "exact",
        recovery: float | None = None,
        frame_bytes: int | None = None,
        with_model: bool = False,
        _scope: Scope | None = None,
    ) -> None:
        libraries.warn_if_missing()
        settings = CompressSettings(
            level=level,
            model=model,
            engine=EngineSettings(device=device),
            arithmetic=arithmetic,
            prompt=as_bytes(prompt),
            frame_bytes=frame_bytes,
            recovery=recovery,
            with_model=with_model,
        )
        self._writer: ArchiveWriter | None = ArchiveWriter(settings, scope=_scope)

    def compress(self, data: Buffer) -> bytes:
        """Compresses more of the text; returns a part of the archive, often b"".

        Raises:
            ValueError: after `flush()`.
        """
        return self._open().write(as_bytes(data))

    def flush(self, mode: int = FLUSH_FINISH) -> bytes:
        """Ends the archive, or with FLUSH_FRAME only the frame; returns the rest of its bytes.

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
    """A decompressor of one archive that arrives in pieces; see `decompress` for its arguments.

    A model that the file carries before the archive belongs to it. One that it carries before an earlier archive is not
    known to another object: `open` and `decompress` know it.
    """

    __getstate__ = refuse_copies

    def __init__(self, *, model: Model | None = None, device: str = "auto", prompt: Buffer = b"") -> None:
        self._frames = FrameDecoder(decompress_settings(model, device, prompt))
        self._lines = LineCheck()
        self._steps = ArchiveParser().steps()
        self._input = bytearray()
        self._wanted = self._advance(None)
        self._output = bytearray()
        self._unused = b""
        self._error: Exception | None = None

    @property
    def eof(self) -> bool:
        """Whether the archive has ended and all its text was returned."""
        return self._wanted is None and not self._output

    @property
    def unused_data(self) -> bytes:
        """The bytes after the archive's end; b"" until it is reached."""
        return self._unused if self._wanted is None else b""

    @property
    def needs_input(self) -> bool:
        """Whether `decompress` needs more input to return more text."""
        return not self._output and self._wanted is not None and len(self._input) < self._wanted

    def decompress(self, data: Buffer, max_length: int = -1) -> bytes:
        """Decodes more of the archive; returns text that has passed its checksum.

        Args:
            data: the next bytes; b"" for more of the text that max_length held back.
            max_length: most bytes to return; -1 for no limit. Whole frames are decoded all the same, into memory.

        Raises:
            EOFError: the archive has already ended.
            TypeError: an argument of a wrong type.
            LLMZipError: as for the function `decompress`; every later call raises it again.
        """
        check_type("max_length", max_length, int)
        if self._error is not None:
            raise self._error  # a damaged archive stays damaged, and never looks as if it had ended well
        if self.eof:
            raise EOFError("the archive has ended; unused_data holds the bytes after it")
        self._input += as_bytes(data)
        # With a limit, what is held back is handed out before another frame is decoded.
        while self._wanted is not None and len(self._input) >= self._wanted and not (self._output and max_length >= 0):
            piece = bytes(self._input[: self._wanted])
            del self._input[: self._wanted]
            self._wanted = self._advance(piece)
        if self._wanted is None and self._input:
            self._unused += bytes(self._input)
            self._input.clear()
        size = len(self._output) if max_length < 0 else min(max_length, len(self._output))
        text = bytes(self._output[:size])
        del self._output[:size]
        return text

    def _advance(self, answer: bytes | None) -> int | None:
        """Feeds the parser; returns the number of bytes it wants next, or None at the end."""
        try:
            try:
                request = self._steps.send(answer)
                while isinstance(request, Frame):
                    text = self._frames.decode(request)
                    self._lines.add(request, text.count(b"\n"))
                    self._output += text
                    request = next(self._steps)
            except StopIteration:
                self._lines.finish()
                return None
        except Exception as error:
            self._error = error
            raise
        return request if isinstance(request, int) else 0


def decompress_settings(model: Model | None, device: str, prompt: Buffer) -> DecompressSettings:
    """Returns the settings of everything that reads archives."""
    libraries.warn_if_missing()
    return DecompressSettings(model=model, engine=EngineSettings(device=device), prompt=as_bytes(prompt))


def as_bytes(data: Buffer) -> bytes:
    """Returns the bytes of any bytes-like object; the caller must encode text."""
    if isinstance(data, str):
        raise TypeError("a bytes-like object is required, not 'str': encode the text first")
    if isinstance(data, bytes):
        return data
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise TypeError(f"a bytes-like object is required, not {type(data).__name__!r}") from None
