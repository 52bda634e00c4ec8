"""Archives to bytes: decodes frames and checks their checksums.

The model and torch are loaded only when a frame needs them.
"""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from ..errors import CorruptError, LLMZipError, ModelMismatchError
from ..format.headers import MIXED, SKIP, WINDOWS, Frame, Header
from ..format.plan import header_plan
from ..format.reading import Position, read_archives
from ..format.recovery import check_packets
from ..inference.on_demand import ModelOnDemand
from ..inference.progress import ByteMeter, Progress
from ..models.choice import check_model_code, model_for_archive
from ..settings import DecompressSettings
from ..system import forks
from ..system.streams import read_upto, write_all
from . import methods
from .lines import LineCheck
from .parallel import in_order, one_at_a_time
from .report import CharacterCounter, FrameReport, StreamReport, frame_report

if TYPE_CHECKING:
    import numpy as np

    from ..format.plan import RowPlan
    from ..inference.load import Kernels, LoadedModel
    from .ahead import DecodedAhead
    from .rows import FrameCoder


class FrameDecoder:
    """Decodes frames, loading their model on first use.

    Several threads may use it at once.

    Args:
        settings: model, engine, prompt.
        ahead: tokens of frames that may have been decoded before; None for none.

    Attributes:
        seconds_ahead: what decoding the tokens that were found there took.
    """

    def __init__(self, settings: DecompressSettings, ahead: DecodedAhead | None = None) -> None:
        self.seconds_ahead = 0.0
        self._settings, self._ahead = settings, ahead
        self._current: tuple[Header, ModelOnDemand] | None = None
        self._lock = forks.Lock()

    @property
    def model_name(self) -> str | None:
        """Name of the model of the last archive that needed one."""
        return None if self._current is None else self._current[1].name

    @property
    def kernels(self) -> Kernels | None:
        """What computed that model; None before it is loaded."""
        return None if self._current is None else self._current[1].kernels

    @property
    def tokenizer_note(self) -> str:
        """What that model's tokenizer lacks; empty for nothing."""
        return "" if self._current is None else self._current[1].tokenizer_note

    def prepare(self, frames: Iterable[Frame], known: KnownTexts | None = None) -> Iterator[Frame]:
        """Yields the frames, each after its text was looked up, or the model that it needs was loaded.

        Args:
            frames: of a file, from its front.
            known: texts that need no decoding; None for none.

        Raises:
            what `model` raises.
        """
        for frame in frames:
            is_known = known is not None and known.look_up(frame)
            if frame.header.uses_model and not is_known:
                self.model(frame.archive)
            yield frame

    def decode(self, frame: Frame, progress: Progress | None = None) -> bytes:
        """Returns the original bytes of a frame, checked.

        Raises:
            CorruptError, ModelError, EngineError, TokenizerError.
        """
        header = frame.header
        check_model_code(frame.archive)
        if header.method == SKIP:
            with _errors_name(frame):
                check_packets(frame.payload, frame.number)
            return b""
        model = self._model_of(frame.archive) if header.uses_model else None
        loaded = None if model is None else model.load(frame.number)
        with _errors_name(frame):
            if model is None or loaded is None:
                data = _decode_without_model(frame, progress)
            elif header.method == WINDOWS:
                data = _decode_windows(frame, loaded, model.prompt, progress)
            else:
                data = self._decode_rows(frame, loaded, model.prompt, progress)
            computed = zlib.crc32(data)
            if computed != frame.crc32:
                raise CorruptError(f"damaged: crc32 stored {frame.crc32:08x}, computed {computed:08x}")
        return data

    def report(self, frame: Frame) -> FrameReport:
        """Returns the frame in numbers, after it was decoded."""
        return frame_report(frame.header, frame.size_bytes, None)

    def model(self, header: Header) -> LoadedModel:
        """Returns the model that an archive's frames need, loading it first.

        Raises:
            CorruptError, FormatError, ModelError, EngineError, TokenizerError.
        """
        return self._model_of(header).load()

    def coder(self, frame: Frame) -> tuple[LoadedModel, FrameCoder]:
        """Returns the model of a frame whose tokens a model codes, and what decodes them.

        Raises:
            CorruptError, FormatError, ModelError, EngineError, TokenizerError.
        """
        model = self._model_of(frame.archive)
        loaded = model.load(frame.number)
        return loaded, _coder(frame, loaded, model.prompt)

    def frames_at_once(self, frame: Frame) -> int:
        """Returns how many frames like this one may be decoded side by side, 1 or more; loads nothing.

        Raises:
            CorruptError: the frame's rows do not fit the model.
        """
        header = frame.header
        if header.method == WINDOWS or not header.uses_model:
            return 1
        model = self._model_of(frame.archive)
        if model.loaded is None:
            return 1
        with _errors_name(frame):
            plan = header_plan(header, model.loaded.engine.context)
        return model.frames_at_once(plan, mixed=header.method == MIXED)

    def _decode_rows(self, frame: Frame, model: LoadedModel, prompt: bytes, progress: Progress | None) -> bytes:
        header, table = frame.header, model.table
        plan = header_plan(header, model.engine.context)
        limit = ByteMeter(table.num_bytes, header.original_bytes, progress)
        found = None
        if self._ahead is not None and not prompt:
            found = self._ahead.take(model, header.method, plan, frame.payload)
        if found is not None:
            tokens, seconds = found
            limit.add(tokens)
            with self._lock:
                self.seconds_ahead += seconds
        else:
            tokens = _decode_tokens(frame, model, prompt, plan=plan, limit=limit)
        data = table.decode(tokens)
        if len(data) != header.original_bytes:
            raise CorruptError(f"damaged: {len(data)} bytes came out, {header.original_bytes} were promised")
        return data

    def _model_of(self, header: Header) -> ModelOnDemand:
        """Returns the model of an archive, which need not be loaded yet."""
        with self._lock:
            known = None if self._current is None else self._current[0]
            if self._current is None or known != header or known.carried is not header.carried:
                choice = model_for_archive(header, self._settings.model)
                prompt = self._checked_prompt(header)
                self._current = (header, ModelOnDemand(choice, self._settings.engine, prompt))
            return self._current[1]

    def _checked_prompt(self, header: Header) -> bytes:
        """Returns the text that the archive was made with.

        Raises:
            ModelMismatchError: none was given, or another one.
        """
        if header.model is None or not header.model.prompt_digest:
            return b""
        expected, text = header.model.prompt_digest, self._settings.prompt
        if not text:
            raise ModelMismatchError(
                f"made with a prompt, digest {expected.hex()}: give the same text with --prompt-file"
            )
        from ..inference import prompt as prompts

        digest = prompts.digest(text)[: len(expected)]
        if digest != expected:
            raise ModelMismatchError(
                f"another prompt than the archive's: expected digest {expected.hex()}, found {digest.hex()}"
            )
        return text


@contextlib.contextmanager
def _errors_name(frame: Frame) -> Iterator[None]:
    """Puts the frame's number before the message of a CorruptError."""
    try:
        yield
    except CorruptError as error:
        raise CorruptError(f"frame {frame.number}: {error}") from None


def _decode_without_model(frame: Frame, progress: Progress | None) -> bytes:
    header = frame.header
    if header.method == MIXED:
        from ..mixing.mixer import decode_bytes

        return decode_bytes(frame.payload, header.original_bytes, progress)
    data = methods.decompress_plain(header.method, frame.payload, header.original_bytes)
    if progress is not None:
        progress(len(data))
    return data


def _decode_windows(frame: Frame, model: LoadedModel, prompt: bytes, progress: Progress | None) -> bytes:
    from ..system.memory import allocations_checked
    from ..windows import frames as window_frames

    if prompt:
        raise CorruptError("damaged: windows in an archive with a prompt")
    with allocations_checked("not enough memory for the model"):
        return window_frames.decode(model, frame.header, frame.payload, progress)


def _decode_tokens(frame: Frame, model: LoadedModel, prompt: bytes, *, plan: RowPlan, limit: ByteMeter) -> np.ndarray:
    from ..system.memory import allocations_checked

    coder = _coder(frame, model, prompt)
    with allocations_checked("not enough memory for the model"):
        return coder.decode(frame.payload, plan, limit)


def _coder(frame: Frame, model: LoadedModel, prompt: bytes) -> FrameCoder:
    from .rows import FrameCoder

    vocabulary = model.vocabulary if frame.header.method == MIXED else None
    return FrameCoder(model.engine, vocabulary, model.prompt(prompt), model.followers)


def decompress_stream(
    source: BinaryIO,
    sink: BinaryIO | None,
    settings: DecompressSettings,
    progress: Progress | None = None,
    *,
    ahead: DecodedAhead | None = None,
    known: BinaryIO | None = None,
) -> StreamReport:
    """Decompresses all archives in `source`; everything written has passed its checksum.

    Args:
        source: a binary file; it need not be seekable.
        sink: where the text goes, or None to test only.
        settings: model, engine, prompt.
        progress: called with numbers of bytes of the original that were done.
        ahead: tokens that may have been decoded before, with the same settings; None for none.
        known: a file with a beginning of the text, which an interrupted run has left; as much of it as passes the
            frames' checksums is not decoded again. None for none.

    Raises:
        FormatError, CorruptError, TruncatedError, ModelError, EngineError, TokenizerError; OSError from the files.
    """
    started = time.perf_counter()
    decoder = FrameDecoder(settings, ahead)
    report = StreamReport()
    characters = CharacterCounter()
    lines = LineCheck()
    position = Position()
    texts = KnownTexts(known)
    frames = decoder.prepare(read_archives(source, position=position), texts)
    progress = one_at_a_time(progress)
    # Whoever writes into a pipe may wait for the text of a frame before the next one comes.
    at_once = decoder.frames_at_once if _is_whole(source) else lambda frame: 1

    def decode(frame: Frame) -> bytes:
        found = texts.take(frame)
        if found is None:
            return decoder.decode(frame, progress)
        if progress is not None:
            progress(len(found))
        return found

    for frame, data in in_order(frames, decode, at_once):
        lines.add(frame, data.count(b"\n"))
        characters.add(data)
        texts.check(data)
        if sink is not None:
            write_all(sink, data)
        report.frames.append(decoder.report(frame))
        report.original_bytes += len(data)
    lines.finish()
    report.compressed_bytes = position.offset_bytes
    report.characters = characters.finish()
    report.model, report.kernels = decoder.model_name, decoder.kernels
    report.tokenizer_note = decoder.tokenizer_note
    report.seconds_ahead = decoder.seconds_ahead
    report.elapsed_seconds = time.perf_counter() - started + report.seconds_ahead
    return report


class KnownTexts:
    """Texts of a file's first frames that an interrupted run has written.

    Args:
        file: begins with them; None for none.
    """

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self._found: dict[int, bytes] = {}  # by the frame's place in the file
        self._is_first, self._beginning = True, b""

    def look_up(self, frame: Frame) -> bool:
        """Reads the text of the next frame; returns whether it passes the frame's checksum.

        Nothing after a text that does not is looked at.
        """
        if self._file is None:
            return False
        text = read_upto(self._file, frame.header.original_bytes)
        if len(text) != frame.header.original_bytes or zlib.crc32(text) != frame.crc32:
            self._file, self._beginning = None, text if self._is_first else b""
            return False
        check_model_code(frame.archive)
        self._is_first = self._is_first and not text
        self._found[frame.offset_bytes] = text
        return True

    def check(self, text: bytes) -> None:
        """Checks the first text that was decoded against what is in the file, which it will replace.

        Raises:
            LLMZipError: nobody has begun to write this text there.
        """
        if not text:
            return
        beginning, self._beginning = self._beginning, b""
        if not text.startswith(beginning):
            raise LLMZipError("the file of an earlier run holds something else than a beginning of the text; remove it")

    def take(self, frame: Frame) -> bytes | None:
        """Returns the text of a frame, once; None if it is not known."""
        return self._found.pop(frame.offset_bytes, None)


def decoded_texts(
    source: BinaryIO,
    settings: DecompressSettings,
    *,
    ahead: DecodedAhead | None = None,
    side_by_side: bool = False,
) -> Iterator[bytes]:
    """Yields the texts of all frames of all archives in `source`, one after the other; each has passed its checksum.

    Args:
        source: a binary file; it need not be seekable.
        settings: model, engine, prompt.
        ahead: tokens that may have been decoded before, with the same settings; None for none.
        side_by_side: whether several frames may be decoded at once, where that is quicker and the source can seek.
            Otherwise the source is read no further than the text that was asked for.

    Raises:
        FormatError, CorruptError, TruncatedError, ModelError, EngineError, TokenizerError; OSError from the file.
    """
    decoder, lines = FrameDecoder(settings, ahead), LineCheck()
    at_once = decoder.frames_at_once if side_by_side and _is_whole(source) else lambda frame: 1
    for frame, text in in_order(decoder.prepare(read_archives(source)), decoder.decode, at_once):
        lines.add(frame, text.count(b"\n"))
        yield text
    lines.finish()


def _is_whole(source: BinaryIO) -> bool:
    """Whether all of a source can be read without waiting for whoever writes it."""
    try:
        return source.seekable()
    except (AttributeError, ValueError):  # not a file, or a closed one
        return False
