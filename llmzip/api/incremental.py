"""Compressor and Decompressor after PEP 784: one archive in pieces, in memory; they know no files.

One object serves one operation at a time. Models stay in memory between calls.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from ..codec.reader import FrameDecoder
from ..codec.writer import ArchiveWriter
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
    """Stands in for `__getstate__`: two objects that go on with one archive would write the same bytes twice."""
    raise TypeError(f"cannot copy or pickle a {type(self).__name__} object")


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

    __getstate__ = refuse_copies

    def __init__(
        self,
        *,
        level: int = DEFAULT_LEVEL,
        model: Model = DEFAULT_MODEL,
        device: str = "auto",
        prompt: Buffer = b"",
        arithmetic: str = "exact",
    ) -> None:
        libraries.warn_if_missing()
        engine = EngineSettings(device=device)
        self._writer: ArchiveWriter | None = ArchiveWriter(
            CompressSettings(level=level, model=model, engine=engine, arithmetic=arithmetic, prompt=as_bytes(prompt))
        )

    def compress(self, data: Buffer) -> bytes:
        """Takes more of the text; returns a part of the archive, often b"".

        Raises:
            ValueError: after `flush()`.
        """
        return self._open().write(as_bytes(data))

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

    __getstate__ = refuse_copies

    def __init__(self, *, model: Model | None = None, device: str = "auto", prompt: Buffer = b"") -> None:
        self._frames = FrameDecoder(decompress_settings(model, device, prompt))
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
            TypeError: an argument of a wrong type.
            LLMZipError: as for `decompress`.
        """
        check_type("max_length", max_length, int)
        if self._error is not None:
            raise self._error  # a damaged archive stays damaged, and never looks as if it had ended well
        if self.eof:
            raise EOFError("the archive has ended; unused_data holds what came after it")
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


def decompress_settings(model: Model | None, device: str, prompt: Buffer) -> DecompressSettings:
    """The settings of everything that reads archives."""
    libraries.warn_if_missing()
    return DecompressSettings(model=model, engine=EngineSettings(device=device), prompt=as_bytes(prompt))


def as_bytes(data: Buffer) -> bytes:
    """The bytes of any bytes-like object; a text must be encoded by the caller."""
    if isinstance(data, str):
        raise TypeError("a bytes-like object is required, not 'str': encode the text first")
    if isinstance(data, bytes):
        return data
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise TypeError(f"a bytes-like object is required, not {type(data).__name__!r}") from None
