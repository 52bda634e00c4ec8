"""Estimates of size and times of compressing a long file, from a sample of it; must not know options or terminals.

Each method gives a candidate for all text of the file (candidates.py, model_candidate.py, window_candidate.py). Here
the smallest is chosen by the policy of codec/levels.py, as compressing would do it.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from ..codec.levels import PIECE_BYTES
from ..codec.reader import decompress_stream
from ..codec.writer import compress_stream
from ..format import headers, writing
from ..format.headers import METHODS, STORED
from ..models.choice import ModelChoice, model_for_compressing
from ..settings import CompressSettings, DecompressSettings
from . import candidates
from .budget import DEFAULT_SECONDS, Budget, Report, now
from .candidates import FRAME_BYTES, MIN_TIME_SPREAD, Candidate
from .extrapolation import Range
from .places import Places

if TYPE_CHECKING:
    from ..codec.report import FrameReport
    from ..inference.load import LoadedModel

_WHOLE_BYTES = 1 << 12
"""Files up to this size are compressed as a whole: 4 KiB."""

_MAX_STEP_DEPTH = 512
"""Tokens before the steps that are timed where all of the text is not decoded."""

_STEPS_SPREAD = 0.3
"""Half of the range of a time that was concluded from a few steps, as a part of it."""

_SECONDS_PER_STORED_BYTE = 1e-6
"""Time for each byte that is stored: the plain methods are tried first."""


@dataclass(frozen=True)
class Estimate:
    """What compressing a file would give.

    Attributes:
        original_bytes: size of the file.
        compressed_bytes: size of the archive.
        compress_seconds, decompress_seconds: without the start.
        start_seconds: that loading the model took here, and torch if it needs that; 0 if that was not needed.
        method: that most of the text would be coded by.
        model: its name; None if it would not be used.
        sampled_bytes: text that was coded and decoded.
        pieces: how many places it came from.
        is_whole: whether that was all of the file; then the size is exact.
    """

    original_bytes: int
    compressed_bytes: Range
    compress_seconds: Range
    decompress_seconds: Range
    start_seconds: float
    method: str
    model: str | None
    sampled_bytes: int
    pieces: int
    is_whole: bool


@dataclass(frozen=True)
class _Choice:
    """The candidate that compressing would choose, and the model if it uses one."""

    candidate: Candidate
    model: LoadedModel | None


def estimate(
    source: BinaryIO, settings: CompressSettings, seconds: float = DEFAULT_SECONDS, report: Report | None = None
) -> Estimate:
    """Estimates what compressing one file would give.

    Args:
        source: a seekable binary file.
        settings: what it would be compressed with.
        seconds: about how long this may take, loading apart; there is a smallest sample.
        report: called with what is done next; None for nobody to call.

    Raises:
        ModelError, TokenizerError, EngineError, SettingsError; OSError from the file.
    """
    places = Places(source)
    model_choice = model_for_compressing(settings)
    if places.size > _WHOLE_BYTES:
        places.find_texts()
        if not places.texts:
            quick = Range.exactly(places.size * _SECONDS_PER_STORED_BYTE).spread(1.0)
            stored = Candidate(METHODS[STORED], Range.exactly(0), quick, quick, 0, 0)
            return _estimate(places, settings, _Choice(stored, None), 0.0)
    if not places.size:
        return _whole(places, settings, model_choice, None, Budget(seconds, report), 0.0)
    Budget(0, report).says("loading the model")
    model, start_seconds = _load(model_choice, settings)
    budget = Budget(seconds, report)
    if places.size <= _WHOLE_BYTES:
        return _whole(places, settings, model_choice, model, budget, start_seconds)
    if settings.window_bits is not None:
        from .window_candidate import by_windows

        windows = by_windows(places, model, settings.window_bits, fresh=settings.model_reset, budget=budget)
        return _estimate(places, settings, _Choice(windows, model), start_seconds)
    chosen = _best(places, model, settings, budget)
    if chosen is None:
        return _whole(places, settings, model_choice, model, budget, start_seconds)
    return _estimate(places, settings, chosen, start_seconds)


def _load(model_choice: ModelChoice, settings: CompressSettings) -> tuple[LoadedModel, float]:
    """Loads the model; returns it with the seconds that this took."""
    begun = now()
    from ..inference.load import load

    model = load(model_choice, settings.engine)
    return model, now() - begun


def _best(places: Places, model: LoadedModel, settings: CompressSettings, budget: Budget) -> _Choice | None:
    """Returns the smallest candidate with the time for all that are tried; None if the whole file is tried as quickly.

    Args:
        budget: half of it is the model's in any case.
    """
    from .model_candidate import by_model

    budget.says("trying LZMA and Zstandard")
    plain = candidates.plain(places)
    tried = by_model(places, model, settings, plain, budget.at_least(budget.seconds / 2))
    if tried is None:
        return None
    best, alone = _Choice(tried.candidate, model), tried.alone
    spent = plain.encode_seconds.value
    others = []
    if alone is not None:
        spent += alone.seconds * places.text_bytes
        if not alone.is_helped:
            budget.says("trying the mixer alone")
            others.append(candidates.adaptive(places, alone.seconds))
    for other in (*others, plain):
        if other.size_bytes.value < best.candidate.size_bytes.value:
            best = _Choice(other, None)
    # The time of what is chosen without the model is among what was spent.
    encode = best.candidate.encode_seconds if best.model is not None else Range.exactly(0.0)
    return _Choice(best.candidate._replace(encode_seconds=encode.scaled(1, spent)), best.model)


def _whole(
    places: Places,
    settings: CompressSettings,
    model_choice: ModelChoice,
    model: LoadedModel | None,
    budget: Budget,
    start_seconds: float,
) -> Estimate:
    """Compresses a file that is small enough; and decompresses it, if a few of its steps do not take too long."""
    data, archive = places.read(0, places.size), io.BytesIO()
    budget.says("compressing all of it")
    report = compress_stream(io.BytesIO(data), archive, settings)
    size = archive.tell()
    largest = max(report.frames, key=lambda frame: frame.original_bytes)
    decode = None
    if model is not None and largest.rows:
        decode = _slow_decoding(model, largest, budget)
    if decode is None:
        budget.says("decompressing all of it")
        decode = Range.exactly(_decompress(data, archive, settings, model_choice)).spread(MIN_TIME_SPREAD)
    return Estimate(
        places.size,
        Range.exactly(size),
        Range.exactly(report.elapsed_seconds).spread(MIN_TIME_SPREAD),
        decode,
        start_seconds,
        largest.method,
        report.model,
        places.size,
        1,
        True,
    )


def _slow_decoding(model: LoadedModel, frame: FrameReport, budget: Budget) -> Range | None:
    """Returns the seconds that decoding a frame takes, by a few steps of it; None if it is done within the time."""
    from .trial import MIN_STEPS, Trial

    budget.says("timing single steps")
    trial = Trial(model, mixed=False, overlap=1, prompt=None)
    steps = -(-frame.tokens // frame.rows)
    depth = min(steps, _MAX_STEP_DEPTH) // 2
    seconds = steps * trial.step_seconds(frame.rows, depth, MIN_STEPS)
    return None if seconds < max(budget.left, budget.seconds / 2) else Range.exactly(seconds).spread(_STEPS_SPREAD)


def _decompress(data: bytes, archive: io.BytesIO, settings: CompressSettings, model_choice: ModelChoice) -> float:
    """Decompresses a whole file; returns the seconds."""
    text = io.BytesIO()
    archive.seek(0)
    folder = None if model_choice.embedded is not None else model_choice.folder
    decoded = decompress_stream(archive, text, DecompressSettings(folder, settings.engine, settings.prompt))
    if text.getvalue() != data:
        raise RuntimeError("the file does not come back from its archive")
    return decoded.elapsed_seconds


def _estimate(places: Places, settings: CompressSettings, chosen: _Choice, start_seconds: float) -> Estimate:
    """Adds the archive's header and what is noise to the candidate for the text."""
    candidate, model = chosen.candidate, chosen.model
    noise_bytes = places.size - places.text_bytes
    header = headers.Header() if model is None else model.header(settings.prompt)
    size = candidate.size_bytes.scaled(1, noise_bytes + len(writing.pack_header(header)))
    max_bytes = places.size + FRAME_BYTES * (1 + places.size // PIECE_BYTES)
    return Estimate(
        places.size,
        Range(*(float(math.ceil(min(number, max_bytes))) for number in size)),
        candidate.encode_seconds,
        candidate.decode_seconds,
        start_seconds,
        candidate.name,
        None if model is None else model.name,
        candidate.sampled_bytes,
        candidate.pieces,
        False,
    )
