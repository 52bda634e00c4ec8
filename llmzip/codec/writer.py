"""Bytes to archives: packs frames with their headers and checksums; drafts.py chooses how they are coded.

The model and torch are loaded only when a frame needs them.
"""

from __future__ import annotations

import time
from typing import BinaryIO

from ..format import headers
from ..format.headers import SKIP, STORED, FrameHeader, Header
from ..inference.on_demand import ModelOnDemand
from ..inference.progress import Progress
from ..settings import CompressSettings
from ..system.streams import read_some, write_all
from .drafts import Draft, Drafter
from .packing import ArchivePacker
from .report import CharacterCounter, StreamReport, frame_report

UNIT_BYTES = headers.MAX_FRAME_BYTES
"""Input that is looked at together, 64 MiB: the plain methods see all of it, as xz -9 does."""

_READ_BYTES = 1 << 20
"""Input that is read at once: 1 MiB."""


class ArchiveWriter:
    """Turns bytes that arrive in pieces into one archive.

    Args:
        settings: level, model, engine.
        progress: called with numbers of bytes of the original that were done.
        model: the model of the settings, if the caller has it already; None to choose it.

    Attributes:
        report: sizes and times of what was written so far.
    """

    def __init__(
        self, settings: CompressSettings, progress: Progress | None = None, model: ModelOnDemand | None = None
    ) -> None:
        self._model = ModelOnDemand.of(settings) if model is None else model
        self._drafter = Drafter(self._model, settings, progress)
        # Whole frames, so that only the last one is shorter.
        self._unit_bytes = UNIT_BYTES - UNIT_BYTES % (settings.frame_bytes or 1)
        self._buffer = bytearray()
        self._packer = ArchivePacker()
        self._characters = CharacterCounter()
        self._started = time.perf_counter()
        self.report = StreamReport()

    def write(self, data: bytes) -> bytes:
        """Takes the next bytes of the original; returns the part of the archive that is ready, often nothing."""
        self._characters.add(data)
        self._buffer += data
        out = b""
        # A unit is only written once more input is there: the archive's last frame must be marked as such.
        while len(self._buffer) > self._unit_bytes:
            unit = bytes(self._buffer[: self._unit_bytes])
            del self._buffer[: self._unit_bytes]
            out += self._unit(unit, last=False)
        return out

    def flush_frame(self) -> bytes:
        """Ends the frame and returns what is left of it; what is written later starts another one."""
        unit, self._buffer = bytes(self._buffer), bytearray()
        return self._unit(unit, last=False) if unit else b""

    def finish(self) -> bytes:
        """Returns the rest of the archive."""
        out = self._unit(bytes(self._buffer), last=True)
        self._buffer = bytearray()
        out += self._packer.index()
        self.report.compressed_bytes = self._packer.num_bytes
        self.report.characters = self._characters.finish()
        self.report.elapsed_seconds = time.perf_counter() - self._started
        return out

    def _unit(self, data: bytes, *, last: bool) -> bytes:
        """Returns the frames of some input, before them the archive's header if they are its first ones."""
        is_first = not self._packer.has_header
        if data:
            frames = self._drafter.best_frames(data, alone=last and is_first)
        else:  # an empty archive's only frame, or one that is there to be the last, after flush_frame()
            frames = [Draft(FrameHeader(STORED if is_first else SKIP, 0, 0), b"", b"")]
        if is_first:
            uses_model = any(draft.header.uses_model for draft in frames) or not last
            self._packer.begin(self._model.archive_header() if uses_model else Header())
        out = b""
        for number, draft in enumerate(frames):
            out += self._packer.draft(draft, last=last and number == len(frames) - 1)
            if draft.header.uses_model:
                self.report.model, self.report.kernels = self._model.name, self._model.kernels
                self.report.tokenizer_note = self._model.tokenizer_note
            self.report.frames.append(frame_report(draft.header, draft.bytes, draft.bits))
            self.report.original_bytes += len(draft.original)
        self.report.compressed_bytes = self._packer.num_bytes
        return out


def compress_stream(
    source: BinaryIO, sink: BinaryIO, settings: CompressSettings, progress: Progress | None = None
) -> StreamReport:
    """Compresses all of `source` into one archive.

    Args:
        source, sink: binary files; the sink need not be seekable.
        settings: level, model, engine.
        progress: called with numbers of bytes of the original that were done.

    Raises:
        ModelError, TokenizerError, EngineError, SettingsError; OSError from the files.
    """
    writer = ArchiveWriter(settings, progress)
    while data := read_some(source, _READ_BYTES):
        write_all(sink, writer.write(data))
    write_all(sink, writer.finish())
    return writer.report
