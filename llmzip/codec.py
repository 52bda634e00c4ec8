"""Bytes to archives and back: cuts frames, picks methods, checks results; the one module that knows all parts.

The model and torch are loaded only when a frame needs them.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from . import container, methods, models
from .container import LM, SKIP, STORED, FrameHeader, Header
from .errors import CorruptError
from .report import CharacterCounter, FrameReport, StreamReport
from .settings import CompressSettings, DecompressSettings

if TYPE_CHECKING:
    from .runtime import LoadedModel

Progress = Callable[[int], None]

UNIT_BYTES = container.MAX_FRAME_BYTES
"""Input that is looked at together: the plain methods see all of it, as xz -9 does."""

LM_FRAME_BYTES = container.MAX_LM_BYTES
"""Input of one frame of method lm."""

_READ_BYTES = 1 << 20
_SAMPLED_FROM_BYTES = 1 << 15
_SAMPLES = 4
_LOOKS = ((1 / 32, 1.25), (1 / 16, 1.1))
"""Before the model gets a whole piece, it gets samples of it, each this part of the piece; if they come out larger than
the plain methods by this factor, that was all. Samples estimate too high, as each begins with an empty context."""

_MOST_SAMPLE_BYTES = (1536, 8192)


def level_profile(level: int) -> int:
    """Levels 1-3: fast (0), 4-6: normal (1), 7-9: best (2); format section 4."""
    return (level - 1) // 3


class ArchiveWriter:
    """Turns bytes that arrive in pieces into one archive.

    Args:
        settings: level, model, engine.
        progress: called with numbers of bytes of the original that were done.
    """

    def __init__(self, settings: CompressSettings, progress: Progress | None = None) -> None:
        self._settings = settings
        self._progress = progress
        self._taken_bytes = self._done_bytes = 0  # of the original: looked at, and reported
        self._choice = models.choose(settings.model)
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
            index = container.pack_index(self._entries)
            self.report.compressed_bytes += len(index)
            out += index
        self.report.characters = self._characters.finish()
        self.report.elapsed_seconds = time.perf_counter() - self._started
        return out

    def _unit(self, data: bytes, last: bool) -> bytes:
        if data:
            frames = self._best_frames(data, last)
        else:  # an empty archive's only frame, or one that is there to be the last, after flush_frame()
            frames = [(FrameHeader(SKIP if self._entries else STORED, last, 0, 0), b"", b"", None)]
        prefix = b""
        if not self._entries:
            uses_model = any(header.method == LM for header, *_ in frames) or not last
            prefix = container.pack_header(self._archive_header() if uses_model else Header())
            self.report.compressed_bytes += len(prefix)
        out = b""
        for number, (unmarked, payload, original, bits) in enumerate(frames):
            header = container.with_last(unmarked, last and number == len(frames) - 1)
            frame = container.pack_frame(header, payload, zlib.crc32(original), prefix)
            size = len(frame) - len(prefix)
            prefix = b""
            if header.method == LM:
                self.report.model = self._choice.name
            self._entries.append((size, len(original)))
            self.report.frames.append(_frame_report(header, size, self._context(header), bits))
            self.report.original_bytes += len(original)
            self.report.compressed_bytes += size
            out += frame
        return out

    def _archive_header(self) -> Header:
        if self._choice.embedded is not None:
            return Header(self._choice.embedded.code)  # its digests are known without loading it
        return self._model().header

    def _model(self) -> LoadedModel:
        from .runtime import load

        return load(self._choice, self._settings.engine)

    def _context(self, header: FrameHeader) -> int:
        return self._model().engine.context if header.method == LM else 0

    def _best_frames(self, data: bytes, last: bool) -> list[_Draft]:
        """The frames of one unit: the plain methods over all of it, or piece by piece whatever is smaller."""
        whole = _plain_draft(data)
        pieces = [data[n : n + LM_FRAME_BYTES] for n in range(0, len(data), LM_FRAME_BYTES)]
        drafts: list[_Draft] = []
        run: list[bytes] = []  # pieces for the plain methods, which do better with all of them together
        for piece in pieces:
            self._taken_bytes += len(piece)
            draft = self._lm_draft(piece, whole if len(pieces) == 1 else None)
            if draft is None:
                run.append(piece)
            else:
                drafts += _run_drafts(run, whole)
                run = []
                drafts.append(draft)
            self._advance(self._taken_bytes - self._done_bytes)
        drafts += _run_drafts(run, whole)
        size = _drafts_bytes(drafts)
        if last and not self._entries and any(draft[0].method == LM for draft in drafts):
            # Without a model the header need not tell which.
            size += len(container.pack_header(self._archive_header())) - len(container.pack_header(Header()))
        return drafts if size < _drafts_bytes([whole]) else [whole]

    def _advance(self, done: int) -> None:
        self._done_bytes += done
        if self._progress is not None and done:
            self._progress(done)

    def _lm_draft(self, piece: bytes, plain: _Draft | None) -> _Draft | None:
        """The piece through the model, or None if the plain methods are smaller (`plain`: their draft, if known)."""
        if methods.looks_random(piece):
            return None
        plain_bits = 8 * len((plain or _plain_draft(piece))[1]) / len(piece)
        model = self._model()
        if len(piece) >= _SAMPLED_FROM_BYTES:
            for (part, factor), most in zip(_LOOKS, _MOST_SAMPLE_BYTES, strict=True):
                if _sample_bits(model, piece, min(int(part * len(piece)), most)) > factor * plain_bits:
                    return None
        header, payload, bits = _encode_lm(model, piece, self._settings.level, self._advance)
        if 8 * len(payload) >= plain_bits * len(piece):
            return None
        return header, payload, piece, bits


_Draft = tuple[FrameHeader, bytes, bytes, "float | None"]
"""Header, payload, original bytes, bound in bits."""


def _plain_draft(data: bytes) -> _Draft:
    method, payload = methods.compress_plain(data)
    return FrameHeader(method, False, len(data), len(payload)), payload, data, None


def _run_drafts(run: list[bytes], whole: _Draft) -> list[_Draft]:
    """The frame of neighbouring pieces; the whole unit's is known already."""
    data = b"".join(run)
    if not data:
        return []
    return [whole if len(data) == len(whole[2]) else _plain_draft(data)]


def _drafts_bytes(drafts: list[_Draft]) -> int:
    """Size of frames and index together, near enough to choose by."""
    return sum(len(container.pack_frame(d[0], d[1], 0)) for d in drafts) + 10 * (len(drafts) - 1)


def _encode_lm(
    model: LoadedModel, data: bytes, level: int, progress: Progress | None
) -> tuple[FrameHeader, bytes, float]:
    from . import rows
    from .engines.memory import allocations_checked

    tokens = model.tokenizer.encode(data)
    profile = level_profile(level)
    plan = rows.profile_plan(profile, len(tokens), model.engine.context)
    report = None
    if progress is not None:
        table = model.tokenizer.tokens
        report = lambda ids: progress(table.num_bytes(ids))  # noqa: E731
    with allocations_checked():
        payload, bits = rows.encode(model.engine, tokens, plan, report)
    return FrameHeader(LM, False, len(data), len(payload), len(tokens), profile), payload, bits


def _sample_bits(model: LoadedModel, data: bytes, sample_bytes: int) -> float:
    """Bits per byte of a few places of the data under the model, each from an empty context."""
    step = (len(data) - sample_bytes) // (_SAMPLES - 1)
    parts = [data[n * step : n * step + sample_bytes] for n in range(_SAMPLES)]
    return sum(_encode_lm(model, part, 9, None)[2] for part in parts) / (_SAMPLES * sample_bytes)


def _frame_report(header: FrameHeader, size: int, context: int, bits: float | None) -> FrameReport:
    num_rows = 0
    if header.method == LM:
        from . import rows

        num_rows = rows.header_plan(header, context).num_rows
    return FrameReport(
        container.METHOD_NAMES[header.method], header.original_bytes, size, num_rows, header.num_tokens, bits
    )


class FrameDecoder:
    """Decodes frames, and keeps the model that they need."""

    def __init__(self, settings: DecompressSettings) -> None:
        self._settings = settings
        self._loaded: tuple[Header, LoadedModel] | None = None
        self.model_name: str | None = None

    def decode(self, frame: container.Frame, progress: Progress | None = None) -> bytes:
        """The original bytes of a frame, checked.

        Raises:
            CorruptError, ModelError, EngineError, TokenizerError.
        """
        header = frame.header
        models.check_code(frame.archive)
        if header.method == SKIP:
            return b""
        if header.method == LM:
            data = self._decode_lm(frame, progress)
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

    def report(self, frame: container.Frame) -> FrameReport:
        """The frame in numbers, after it was decoded."""
        context = self._model(frame.archive).engine.context if frame.header.method == LM else 0
        return _frame_report(frame.header, frame.size_bytes, context, None)

    def _decode_lm(self, frame: container.Frame, progress: Progress | None) -> bytes:
        from . import rows
        from .engines.memory import allocations_checked

        model = self._model(frame.archive)
        table = model.tokenizer.tokens
        original = frame.header.original_bytes
        try:
            plan = rows.header_plan(frame.header, model.engine.context)
            with allocations_checked():
                tokens = rows.decode(model.engine, frame.payload, plan, table.num_bytes, original, progress)
        except CorruptError as error:
            raise CorruptError(f"frame {frame.number}: {error}") from None
        data = table.decode(tokens)
        if len(data) != original:
            raise CorruptError(f"frame {frame.number}: damaged: {len(data)} bytes came out, {original} were promised")
        return data

    def _model(self, header: Header) -> LoadedModel:
        if self._loaded is None or self._loaded[0] != header:
            from .runtime import load

            choice = models.for_archive(header, self._settings.model)
            self._loaded = (header, load(choice, self._settings.engine))
            self.model_name = self._loaded[1].name
        return self._loaded[1]


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
    while data := source.read(_READ_BYTES):
        sink.write(writer.write(data))
    sink.write(writer.finish())
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
    position = container.Position()
    for frame in container.read_archives(source, position=position):
        data = decoder.decode(frame, progress)
        characters.add(data)
        if sink is not None:
            sink.write(data)
        report.frames.append(decoder.report(frame))
        report.original_bytes += len(data)
    report.compressed_bytes = position.offset_bytes
    report.characters = characters.finish()
    report.model = decoder.model_name
    report.elapsed_seconds = time.perf_counter() - started
    return report
