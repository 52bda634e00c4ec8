"""Bytes to archives: packs frames with their headers and checksums; drafts.py chooses how they are coded.

The model and torch are loaded only when a frame needs them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from ..format import headers
from ..format.headers import SKIP, STORED, CarriedModel, FrameHeader, Header
from ..inference.on_demand import ModelOnDemand
from ..inference.progress import Progress
from ..settings import CompressSettings
from ..system.streams import read_some, write_all
from .drafts import Draft, Drafter
from .packing import ArchivePacker
from .report import CharacterCounter, StreamReport, frame_report

if TYPE_CHECKING:
    from ..recovery.making import RecoveryWriter
    from .journal import DraftJournal

UNIT_BYTES = headers.MAX_FRAME_BYTES
"""Input that is looked at together, 64 MiB: the plain methods see all of it, as xz -9 does."""

_READ_BYTES = 1 << 20
"""Input that is read at once: 1 MiB."""


@dataclass
class Scope:
    """What a file carries where its next archive is written, so that a model is written once for several archives.

    Attributes:
        carried: the last model that was written; None for none.
    """

    carried: CarriedModel | None = None


class ArchiveWriter:
    """Turns bytes that arrive in pieces into one archive, and its recovery data if the settings ask for it.

    Args:
        settings: level, model, engine.
        progress: called with numbers of bytes of the original that were done.
        model: the model of the settings, if the caller has it already; None to choose it.
        journal: where drafts are kept and found, so that an interrupted run can be continued; None for nowhere.
        scope: what the file carries before this archive; it is kept up to date. None for a file that begins here.

    Attributes:
        report: sizes and times of what was written so far.
    """

    def __init__(
        self,
        settings: CompressSettings,
        progress: Progress | None = None,
        model: ModelOnDemand | None = None,
        *,
        journal: DraftJournal | None = None,
        scope: Scope | None = None,
    ) -> None:
        self._carries = settings.with_model
        self._scope = scope or Scope()
        self._model = ModelOnDemand.of(settings) if model is None else model
        self._drafter = Drafter(self._model, settings, progress, journal)
        # Whole frames, so that only the last one is shorter.
        self._unit_bytes = UNIT_BYTES - UNIT_BYTES % (settings.frame_bytes or 1)
        self._buffer = bytearray()
        self._packer = ArchivePacker()
        self._recovery = None if settings.recovery is None else _recovery_writer(settings.recovery)
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
        """Returns the rest of the archive, and its recovery data."""
        out = self._unit(bytes(self._buffer), last=True)
        self._buffer = bytearray()
        index = self._packer.index()
        out += index
        self.report.compressed_bytes = self._packer.num_bytes
        if self._recovery is not None:
            self._recovery.add(index)
            recovery = b"".join(self._recovery.finish())
            out += recovery
            self.report.compressed_bytes += len(recovery)
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
            if uses_model:
                self._begin()
            else:
                self._packer.begin(Header())
        out = b""
        for number, draft in enumerate(frames):
            out += self._packer.draft(draft, last=last and number == len(frames) - 1)
            if draft.header.uses_model:
                self.report.model, self.report.kernels = self._model.name, self._model.kernels
                self.report.tokenizer_note = self._model.tokenizer_note
            self.report.frames.append(frame_report(draft.header, draft.bytes, draft.bits))
            self.report.original_bytes += len(draft.original)
        self.report.compressed_bytes = self._packer.num_bytes
        if self._recovery is not None:
            self._recovery.add(out)
        return out

    def _begin(self) -> None:
        """Begins an archive that needs the model, and before it the model if the file is to carry it and does not."""
        header = self._model.archive_header(by_record=self._carries)
        carried = None
        if self._carries and self._model.carried() != self._scope.carried:
            carried = self._scope.carried = self._model.carried()
        self._packer.begin(header, carried)


def _draft_journal(file: BinaryIO, settings: CompressSettings, model: ModelOnDemand) -> DraftJournal:
    from .journal import DraftJournal  # here, because most runs have none

    return DraftJournal(file, settings, model)


def _recovery_writer(percent: float) -> RecoveryWriter:
    from ..recovery.making import RecoveryWriter  # here, because most archives have none

    return RecoveryWriter(percent)


def compress_stream(
    source: BinaryIO,
    sink: BinaryIO,
    settings: CompressSettings,
    progress: Progress | None = None,
    *,
    journal: BinaryIO | None = None,
    scope: Scope | None = None,
) -> StreamReport:
    """Compresses all of `source` into one archive.

    Args:
        source, sink: binary files; the sink need not be seekable.
        settings: level, model, engine.
        progress: called with numbers of bytes of the original that were done.
        journal: a file in which an interrupted run has left what it had done, or an empty one; what this run does is
            added. None for none.
        scope: what the sink carries before this archive, as for `ArchiveWriter`.

    Raises:
        ModelError, TokenizerError, EngineError, SettingsError; OSError from the files.
        LLMZipError: the journal is that of another run, or anything else.
    """
    model = ModelOnDemand.of(settings)
    drafts = None if journal is None else _draft_journal(journal, settings, model)
    writer = ArchiveWriter(settings, progress, model, journal=drafts, scope=scope)
    while data := read_some(source, _READ_BYTES):
        write_all(sink, writer.write(data))
    write_all(sink, writer.finish())
    return writer.report
