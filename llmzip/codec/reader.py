"""Bytes to archives and back: packs frames, decodes them, checks results; drafts.py chooses how they are coded.

The model and torch are loaded only when a frame needs them.
"""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, BinaryIO

from ..errors import CorruptError, LLMZipError, ModelMismatchError
from ..format import headers, plan
from ..format.headers import MIXED, SKIP, STORED, WINDOWS, FrameHeader, Header
from ..models import choice as models
from ..settings import CompressSettings, DecompressSettings
from ..system import forks
from ..system.streams import read_some, write_all
from . import methods
from .drafts import Draft, Drafter, Progress
from .parallel import in_order, one_at_a_time
from .report import CharacterCounter, FrameReport, StreamReport

if TYPE_CHECKING:
    from ..inference.load import Kernels, LoadedModel, Models

UNIT_BYTES = headers.MAX_FRAME_BYTES
"""Input that is looked at together: the plain methods see all of it, as xz -9 does."""

_READ_BYTES = 1 << 20


class ArchiveWriter:
    """Turns bytes that arrive in pieces into one archive.

    Args:
        settings: level, model, engine.
        progress: called with numbers of bytes of the original that were done.
    """

    def __init__(self, settings: CompressSettings, progress: Progress | None = None) -> None:
        self._choice = models.for_compressing(settings)
        self._drafter = Drafter(self._choice, settings, progress)
        self._buffer = bytearray()
        self._entries: list[tuple[int, int]] = []
        self._characters = CharacterCounter()
        self._started = time.perf_counter()
        self.report = StreamReport()

    def write(self, data: bytes) -> bytes:
        """Takes the next bytes of the original; returns what is ready of the archive, often nothing."""
        self._characters.add(data)
        self._buffer += data
        out = b""
        # A unit is only written once more input is there: the archive's last frame must be marked as such.
        while len(self._buffer) > UNIT_BYTES:
            unit = bytes(self._buffer[:UNIT_BYTES])
            del self._buffer[:UNIT_BYTES]
            out += self._unit(unit, last=False)
        return out

    def flush_frame(self) -> bytes:
        """Ends the frame; what comes later starts another one, and there must be something."""
        unit, self._buffer = bytes(self._buffer), bytearray()
        return self._unit(unit, last=False) if unit else b""

    def finish(self) -> bytes:
        """The rest of the archive."""
        out = self._unit(bytes(self._buffer), last=True)
        self._buffer = bytearray()
        if len(self._entries) > 1:
            index = headers.pack_index(self._entries)
            self.report.compressed_bytes += len(index)
            out += index
        self.report.characters = self._characters.finish()
        self.report.elapsed_seconds = time.perf_counter() - self._started
        return out

    def _unit(self, data: bytes, last: bool) -> bytes:
        if data:
            frames = self._drafter.best_frames(data, alone=last and not self._entries)
        else:  # an empty archive's only frame, or one that is there to be the last, after flush_frame()
            frames = [Draft(FrameHeader(SKIP if self._entries else STORED, last, 0, 0), b"", b"")]
        prefix = b""
        if not self._entries:
            uses_model = any(draft.header.uses_model for draft in frames) or not last
            prefix = headers.pack_header(self._drafter.header() if uses_model else Header())
            self.report.compressed_bytes += len(prefix)
        out = b""
        for number, draft in enumerate(frames):
            header, original = headers.with_last(draft.header, last and number == len(frames) - 1), draft.original
            if not headers.is_readable(header, alone=header.last and not self._entries):
                raise RuntimeError(f"a frame that no reader would take: {header}")
            frame = headers.pack_frame(header, draft.payload, zlib.crc32(original), prefix)
            size = len(frame) - len(prefix)
            prefix = b""
            if header.uses_model:
                self.report.model, self.report.kernels = self._choice.name, self._drafter.kernels
            self._entries.append((size, len(original)))
            self.report.frames.append(_frame_report(header, size, draft.bits))
            self.report.original_bytes += len(original)
            self.report.compressed_bytes += size
            out += frame
        return out


def _frame_report(header: FrameHeader, size: int, bits: float | None) -> FrameReport:
    in_rows = header.uses_model and header.method != WINDOWS
    num_rows = plan.header_plan(header, headers.MAX_CONTEXT).num_rows if in_rows else 0
    return FrameReport(header.method_name, header.original_bytes, size, num_rows, header.num_tokens, bits)


class FrameDecoder:
    """Decodes frames, and keeps the model that they need."""

    def __init__(self, settings: DecompressSettings) -> None:
        self._settings = settings
        self._loaded: tuple[Header, Models, bytes] | None = None
        self._lock = forks.Lock()
        self.model_name: str | None = None
        self.kernels: Kernels | None = None

    def decode(self, frame: headers.Frame, progress: Progress | None = None) -> bytes:
        """The original bytes of a frame, checked.

        Raises:
            CorruptError, ModelError, EngineError, TokenizerError.
        """
        header = frame.header
        models.check_code(frame.archive)
        if header.method == SKIP:
            return b""
        if header.uses_model:
            data = self._decode_tokens(frame, progress)
        elif header.method == MIXED:
            data = _decode_adaptive(frame, progress)
        else:
            try:
                data = methods.decompress_plain(header.method, frame.payload, header.original_bytes)
            except CorruptError as error:
                raise CorruptError(f"frame {frame.number}: {error}") from None
            if progress is not None:
                progress(len(data))
        computed = zlib.crc32(data)
        if computed != frame.crc32:
            raise CorruptError(
                f"frame {frame.number}: damaged: crc32 stored {frame.crc32:08x}, computed {computed:08x}"
            )
        return data

    def report(self, frame: headers.Frame) -> FrameReport:
        """The frame in numbers, after it was decoded."""
        return _frame_report(frame.header, frame.size_bytes, None)

    def _decode_tokens(self, frame: headers.Frame, progress: Progress | None) -> bytes:
        from ..system.memory import allocations_checked
        from . import rows

        found, prompt_text = self._models(frame.archive)
        model = found[frame.number]
        if frame.header.method == WINDOWS:
            from ..windows import frames as window_frames

            if prompt_text:
                raise CorruptError(f"frame {frame.number}: damaged: windows in an archive with a prompt")
            try:
                with allocations_checked("not enough memory for the model"):
                    return window_frames.decode(model, frame.header, frame.payload, progress)
            except CorruptError as error:
                raise CorruptError(f"frame {frame.number}: {error}") from None
        table = model.tokenizer.tokens
        original = frame.header.original_bytes
        try:
            frame_plan = plan.header_plan(frame.header, model.engine.context)
            vocabulary = model.vocabulary if frame.header.method == MIXED else None
            prompt = model.prompt(prompt_text)
            with allocations_checked("not enough memory for the model"):
                tokens = rows.decode(
                    model.engine, frame.payload, frame_plan, table.num_bytes, original, progress, vocabulary, prompt
                )
            data = table.decode(tokens)
        except CorruptError as error:
            raise CorruptError(f"frame {frame.number}: {error}") from None
        if len(data) != original:
            raise CorruptError(f"frame {frame.number}: damaged: {len(data)} bytes came out, {original} were promised")
        return data

    def _checked_prompt(self, header: Header) -> bytes:
        """The text that the archive was made with.

        Raises:
            ModelMismatchError: none was given, or another one.
        """
        if header.model is None or not header.model.prompt_digest:
            return b""
        wanted, text = header.model.prompt_digest, self._settings.prompt
        if not text:
            raise ModelMismatchError(
                f"made with a prompt, digest {wanted.hex()}: give the same text with --prompt-file"
            )
        from ..inference import prompt as prompts

        found = prompts.digest(text)[: len(wanted)]
        if found != wanted:
            raise ModelMismatchError(
                f"another prompt than the archive's: expected digest {wanted.hex()}, found {found.hex()}"
            )
        return text

    def model(self, header: Header) -> LoadedModel:
        """The model that an archive's frames need."""
        return self._models(header)[0][0]

    def _models(self, header: Header) -> tuple[Models, bytes]:
        """The model, and the prompt."""
        with self._lock:
            if self._loaded is None or self._loaded[0] != header:
                from ..inference.load import Models

                choice = models.for_archive(header, self._settings.model)
                prompt = self._checked_prompt(header)
                found = Models(choice, self._settings.engine)
                self.model_name, self.kernels = found[0].name, found[0].kernels
                self._loaded = (header, found, prompt)
            return self._loaded[1:]

    def at_once(self, frame: headers.Frame) -> int:
        """How many frames like this one may be decoded side by side."""
        header = frame.header
        if header.method == WINDOWS or not header.uses_model:
            return 1
        from .rows import frames_at_once

        try:
            found, prompt = self._models(frame.archive)
            frame_plan = plan.header_plan(header, found[0].engine.context)
        except (LLMZipError, OSError):  # decoding raises it again, in the order of the frames
            return 1
        if prompt:  # what has read it is for one frame at a time
            return 1
        return frames_at_once(found[0].engine, frame_plan, header.method == MIXED, len(found))


def _decode_adaptive(frame: headers.Frame, progress: Progress | None) -> bytes:
    from ..mixing.mixer import decode_bytes

    try:
        return decode_bytes(frame.payload, frame.header.original_bytes, progress)
    except CorruptError as error:
        raise CorruptError(f"frame {frame.number}: {error}") from None


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


def decompress_stream(
    source: BinaryIO, sink: BinaryIO | None, settings: DecompressSettings, progress: Progress | None = None
) -> StreamReport:
    """Decompresses all archives in `source`; everything written has passed its checksum.

    Args:
        source: a binary file; it need not be seekable.
        sink: where the text goes, or None to test only.
        settings: model, engine.
        progress: called with numbers of bytes of the original that were done.

    Raises:
        FormatError, CorruptError, TruncatedError, ModelError, EngineError, TokenizerError; OSError from the files.
    """
    started = time.perf_counter()
    decoder = FrameDecoder(settings)
    report = StreamReport()
    characters = CharacterCounter()
    position = headers.Position()
    frames = headers.read_archives(source, position=position)
    tell = one_at_a_time(progress)
    # Whoever writes into a pipe may wait for the text of a frame before the next one comes.
    at_once = decoder.at_once if _is_whole(source) else lambda frame: 1
    for frame, data in in_order(frames, lambda frame: decoder.decode(frame, tell), at_once):
        characters.add(data)
        if sink is not None:
            write_all(sink, data)
        report.frames.append(decoder.report(frame))
        report.original_bytes += len(data)
    report.compressed_bytes = position.offset_bytes
    report.characters = characters.finish()
    report.model, report.kernels = decoder.model_name, decoder.kernels
    report.elapsed_seconds = time.perf_counter() - started
    return report


def _is_whole(source: BinaryIO) -> bool:
    """Whether all of a source is there to be read."""
    try:
        return source.seekable()
    except (AttributeError, ValueError):  # no file, or one that is closed
        return False
