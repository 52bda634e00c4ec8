"""What a file would become by windows, from a sample of it; must not know what else there is to choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..format.headers import METHODS, WINDOWS, FrameHeader
from ..windows import frames as window_frames
from .budget import Budget, now
from .candidates import MIN_TIME_SPREAD, Candidate
from .extrapolation import Range, standard_error
from .places import Places
from .trial import MAX_STEPS, MIN_STEPS, Trial

if TYPE_CHECKING:
    from ..inference.load import LoadedModel

_TEXTS, _FEW_TEXTS = 16, 4
"""Places that the sample comes from, and those that are tried first: slow models leave it at that."""

_MIN_TEXT_BYTES = 256
"""Text of each place at least, in bytes."""

_PROBE_STEPS = 8
"""Depth at which steps are timed."""

_STEPS_PART = 0.3
"""Part of the time that single steps may take in any case."""

_MIN_SIZE_SPREAD = 0.02
"""Half of the range of a size at least, as a part of it."""

Frame = tuple[FrameHeader, bytes]


class _Sample(NamedTuple):
    """Texts from places of a file, as frames of windows.

    Attributes:
        size: asked for of each text in bytes.
        texts: of the places.
        frames: of each text.
        encode_seconds, decode_seconds: of all.
    """

    size: int
    texts: list[bytes]
    frames: list[Frame]
    encode_seconds: float
    decode_seconds: float


def by_windows(places: Places, model: LoadedModel, window_bits: int, *, fresh: bool, budget: Budget) -> Candidate:
    """Estimates windows: nothing is learnt from one to the next, so all but the shape of steps is linear.

    Args:
        fresh: each window begins with an empty context.
        budget: what this may take; there is a smallest sample.
    """
    sample = _grown_sample(places, model, window_bits, fresh=fresh, budget=budget)
    sampled_bytes = sum(map(len, sample.texts))
    factor = places.text_bytes / sampled_bytes
    rates = [_bits_per_byte(text, frame, window_bits) for text, frame in zip(sample.texts, sample.frames, strict=True)]
    rate = sum(rates) / len(rates)
    error = 2 * standard_error(rates, [1] * len(rates))
    decode = sample.decode_seconds * factor
    if fresh:
        decode *= _lockstep_factor(places, model, window_bits, sample, budget)
    return Candidate(
        METHODS[WINDOWS],
        Range.exactly(rate * places.text_bytes / 8).spread(max(error, _MIN_SIZE_SPREAD)),
        Range.exactly(sample.encode_seconds * factor).spread(2 * MIN_TIME_SPREAD),
        Range.exactly(decode).spread(2 * MIN_TIME_SPREAD),
        sampled_bytes,
        len(sample.texts),
    )


def _grown_sample(places: Places, model: LoadedModel, window_bits: int, *, fresh: bool, budget: Budget) -> _Sample:
    """Codes and decodes texts that double in size as long as the time allows."""
    size, count = max(_MIN_TEXT_BYTES, window_bits // 2), _FEW_TEXTS
    while True:
        budget.says(f"coding {count} places of {size:,} bytes")
        texts = [text for text in places.spread(count, size) if text]
        start = now()
        frames = window_frames.encode(model, texts, window_bits, fresh=fresh, progress=None)
        middle = now()
        for frame in frames:
            window_frames.decode(model, *frame, None)
        end = now()
        more = 2 if count == _TEXTS else _TEXTS // count
        is_slow = 1.5 * more * (end - start) > budget.left
        if is_slow or (count == _TEXTS and 2 * size > places.text_bytes // _TEXTS):
            return _Sample(size, texts, frames, middle - start, end - middle)
        if count == _TEXTS:
            size *= 2
        count = _TEXTS


def _bits_per_byte(text: bytes, frame: Frame, window_bits: int) -> float:
    """Returns what a text takes, without its frame's header; no more than stored."""
    record = frame[0].windows
    assert record is not None
    # The last window is full by half, as a rule.
    bits = max(0.5, record.count - 0.5) * window_bits
    directory_bytes = len(frame[1]) - record.data_bytes
    return min(8.0, bits / len(text) + 8 * directory_bytes / len(text))


def _lockstep_factor(places: Places, model: LoadedModel, window_bits: int, sample: _Sample, budget: Budget) -> float:
    """Returns by what factor a full frame decodes slower for each byte than the sample.

    All windows of a frame are decoded in lockstep, and there are more in a full one: too many to be timed, perhaps.
    """
    records = [frame[0].windows for frame in sample.frames]
    windows = max((record.count for record in records if record is not None), default=1)
    trial = Trial(model, mixed=False, overlap=1, prompt=None)
    more = max(1.0, min(window_frames.piece_bytes(window_bits), places.text_bytes) / sample.size)
    budget.says("timing single steps")
    few = trial.step_seconds(windows, _PROBE_STEPS)
    affordable = windows * max(budget.left, _STEPS_PART * budget.seconds) / (MAX_STEPS * few)
    rows = max(2 * windows, min(int(windows * more), int(affordable)))
    steps = MAX_STEPS if rows >= int(windows * more) else MIN_STEPS
    many = trial.step_seconds(rows, _PROBE_STEPS, steps)
    full = many + max(0.0, many - few) / (rows - windows) * max(0.0, windows * more - rows)
    return full / few / more
