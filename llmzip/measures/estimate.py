"""Predicts size and times of compressing a long file from a sample of it; must not know options, names or terminals.

The rows of a frame begin at evenly spread places and are coded in lockstep. A sample has fewer and shorter rows, and
is otherwise coded and decoded just as the file would be. What mixer and contexts gain later on is read off the sample's
own growth; what longer and more rows cost, off single steps.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from ..codec import levels, methods, reader, writer
from ..codec.levels import LEVELS, PIECE_BYTES, level_plan
from ..format import headers
from ..format.headers import LM, METHODS, MIXED, STORED, WINDOWS
from ..models import choice
from ..settings import CompressSettings, DecompressSettings
from .extrapolation import Range, growth, standard_error
from .places import Places

if TYPE_CHECKING:
    import numpy as np

    from ..format.plan import RowPlan
    from ..inference.load import LoadedModel
    from .trial import Trial

DEFAULT_SECONDS = 10.0

_WHOLE_BYTES = 1 << 12
_PLAIN_BYTES, _ADAPTIVE_BYTES = 1 << 20, 1 << 16
_ROWS, _LEAST_STEPS, _MOST_STEPS, _PROBE_STEPS = 32, 64, 512, 8
"""Of a sample: a frame has up to 128 rows, but few long ones tell more than many short ones."""

_DEPTH = 2048
"""Where a step or a token takes as long as ever later on, in models of the usual contexts."""

_WINDOW_TEXTS = 16
_LEAST_TIME_SPREAD = 0.15
_SECONDS_PER_STORED_BYTE = 1e-6
"""What is stored is tried with the plain methods first."""

_FRAME_BYTES = 18


@dataclass(frozen=True)
class Estimate:
    """What compressing would give.

    Attributes:
        original_bytes: of the file.
        compressed_bytes: of the archive.
        compress_seconds, decompress_seconds: the start apart.
        start_seconds: that loading torch and the model took here; 0 if that was not needed.
        method: that the text would be coded by.
        model: its name; None if it would not be used.
        sampled_bytes: that were coded and decoded.
        pieces: how many places they come from.
        is_whole: all of it was; then the size is exact.
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


class _Candidate(NamedTuple):
    """What one method would give for all that is no noise; the times are for these bytes too."""

    name: str
    size_bytes: Range
    encode_seconds: Range
    decode_seconds: Range
    sampled_bytes: int
    pieces: int


class _Alone(NamedTuple):
    """The mixer without a model on a sample: seconds for each byte, and whether the model helps it."""

    seconds: float
    is_helped: bool


def estimate(source: BinaryIO, settings: CompressSettings, seconds: float = DEFAULT_SECONDS) -> Estimate:
    """Estimates one file.

    Args:
        source: seekable.
        settings: what it would be compressed with.
        seconds: about how long this may take, loading apart; there is a least sample.

    Raises:
        ModelError, TokenizerError, EngineError, SettingsError; OSError from the file.
    """
    return _Estimator(source, settings, seconds).run()


class _Estimator:
    """One file."""

    def __init__(self, source: BinaryIO, settings: CompressSettings, seconds: float) -> None:
        self._settings, self._seconds = settings, seconds
        self._places = Places(source)
        self._choice = choice.for_compressing(settings)
        self._start_seconds = 0.0

    def run(self) -> Estimate:
        """The estimate."""
        if self._places.size <= _WHOLE_BYTES:
            if self._places.size:
                self._load()
            return self._whole()
        self._places.find_texts()
        if not self._places.texts:
            quick = Range.exactly(self._places.size * _SECONDS_PER_STORED_BYTE).spread(1.0)
            return self._estimate(_Candidate(METHODS[STORED], Range.exactly(0), quick, quick, 0, 0), None)
        model = self._load()
        begun = time.perf_counter()
        if self._settings.window_bits is not None:
            return self._estimate(self._in_windows(model, self._settings.window_bits), model)
        plain = self._plain()
        left = max(self._seconds - (time.perf_counter() - begun), self._seconds / 2)
        found = self._with_model(model, left)
        if found is None:
            return self._whole()
        best, alone = found
        spent, uses_model = plain.encode_seconds.value, True
        if alone is not None:
            spent += alone.seconds * self._places.text_bytes
            if not alone.is_helped:
                adaptive = self._adaptive(alone.seconds)
                if adaptive.size_bytes.value < best.size_bytes.value:
                    best, uses_model = adaptive, False
        if plain.size_bytes.value < best.size_bytes.value:
            best, uses_model = plain, False
        seconds = best.encode_seconds if uses_model else Range.exactly(0.0)
        return self._estimate(best._replace(encode_seconds=seconds.scaled(1, spent)), model if uses_model else None)

    # -- the methods -------------------------------------------------------------------------------------------------

    def _load(self) -> LoadedModel:
        begun = time.perf_counter()
        from ..inference.load import load

        model = load(self._choice, self._settings.engine)
        self._start_seconds = time.perf_counter() - begun
        return model

    def _whole(self) -> Estimate:
        """Small enough to be done."""
        data, archive, back = self._places.read(0, self._places.size), io.BytesIO(), io.BytesIO()
        report = writer.compress_stream(io.BytesIO(data), archive, self._settings)
        size = archive.tell()
        archive.seek(0)
        folder = None if self._choice.embedded is not None else self._choice.folder
        settings = DecompressSettings(folder, self._settings.engine, self._settings.prompt)
        decoded = reader.decompress_stream(archive, back, settings)
        if back.getvalue() != data:
            raise RuntimeError("the file does not come back from its archive")
        return Estimate(
            self._places.size,
            Range.exactly(size),
            Range.exactly(report.elapsed_seconds).spread(_LEAST_TIME_SPREAD),
            Range.exactly(decoded.elapsed_seconds).spread(_LEAST_TIME_SPREAD),
            self._start_seconds,
            max(report.frames, key=lambda frame: frame.original_bytes).method,
            report.model,
            self._places.size,
            1,
            True,
        )

    def _plain(self) -> _Candidate:
        """By LZMA or Zstandard; what is beyond the sample may be repeated, and is not seen."""
        data = self._places.run_of(_PLAIN_BYTES)
        begun = time.perf_counter()
        method, payload = methods.compress_plain(data)
        middle = time.perf_counter()
        methods.decompress_plain(method, payload, len(data))
        end = time.perf_counter()
        passes = 1 if self._places.size <= PIECE_BYTES else 2  # over all of it, and piece by piece
        factor = self._places.text_bytes / len(data)
        spread = 0.0 if factor == 1 else 0.1
        return _Candidate(
            METHODS[method],
            Range.exactly(len(payload) * factor).spread(spread),
            Range.exactly(passes * (middle - begun) * factor),
            Range.exactly((end - middle) * factor).spread(_LEAST_TIME_SPREAD),
            len(data),
            1,
        )

    def _adaptive(self, seconds: float) -> _Candidate:
        """By the mixer without a model.

        Args:
            seconds: for each byte.
        """
        from ..mixing.mixer import decode_bytes, encode_bytes

        data = self._places.run_of(_ADAPTIVE_BYTES)
        rates, decode_seconds = [], 0.0
        for part in (len(data) // 4, len(data) // 2, len(data)):
            payload, bits = encode_bytes(data[:part])
            rates.append(bits / part)
            if not decode_seconds:  # of the shortest: it takes long
                begun = time.perf_counter()
                decode_bytes(payload, part)
                decode_seconds = (time.perf_counter() - begun) / part
        return _Candidate(
            "adaptive",
            self._in_frames(rates, len(data)).spread(0.1),
            Range.exactly(seconds * self._places.text_bytes),
            Range.exactly(decode_seconds * self._places.text_bytes).spread(_LEAST_TIME_SPREAD),
            len(data),
            1,
        )

    def _in_frames(self, rates: Sequence[float], sampled_bytes: int) -> Range:
        """Bytes of all frames, each of which learns anew."""
        full, rest = divmod(self._places.text_bytes, PIECE_BYTES)
        total = Range.exactly(0.0)
        for size, count in ((PIECE_BYTES, full), (rest, int(rest > 0))):
            if count:
                bits = growth(rates, max(-4.0, math.log2(size / sampled_bytes))).scaled(count * size * rates[-1])
                total = Range(*(one + bit / 8 for one, bit in zip(total, bits, strict=True)))
        return total

    def _with_model(self, model: LoadedModel, seconds: float) -> tuple[_Candidate, _Alone | None] | None:
        """By the model, from level 2 on with the mixer, and then what that does alone.

        None if all of the file takes no longer than a sample.
        """
        from .trial import Trial

        engine, settings = model.engine, self._settings
        look = self._places.spread(64, 256)
        per_byte = max(1, sum(len(model.tokenizer.encode(piece)) for piece in look)) / sum(map(len, look))
        frame_bytes = min(self._places.text_bytes, PIECE_BYTES)
        plan, _ = level_plan(settings.level, max(1, int(frame_bytes * per_byte)), engine, settings)
        mixed = LEVELS[settings.level].mixes and model.tokenizer.tokens.escape is None
        prompt = model.prompt(settings.prompt)
        trial = Trial(model, mixed, plan.overlap, prompt)
        sample = self._sample(model, plan, trial, seconds, per_byte)
        if sample is None:
            return None
        tokens, rates = sample
        rows, steps = tokens.shape
        coded = trial.run(tokens)
        error = standard_error(*trial.row_bits(tokens[:, : steps // 2]))
        if mixed:
            size = self._in_frames(rates, coded.num_bytes)
        else:  # nothing is learnt but from the row itself
            longer = growth(rates, math.log2(plan.steps / steps))
            size = longer.scaled(rates[-1] * self._places.text_bytes / 8)
        size = size.spread(2 * error)
        frames = self._places.text_bytes / frame_bytes
        encode, decode = coded.encode_seconds / tokens.size, coded.decode_seconds / steps
        if not engine.stepwise:
            more, decode = _later(trial, plan, rows, steps, decode, engine.context)
            encode += more
        else:
            encode += coded.decode_seconds / tokens.size  # the encoder tries whether it decodes
        spread = max(_LEAST_TIME_SPREAD, 2 * coded.step_spread)
        candidate = _Candidate(
            METHODS[MIXED if mixed else LM],
            size.scaled(1, _FRAME_BYTES * math.ceil(frames)),
            Range.exactly(encode * plan.num_tokens * frames).spread(spread),
            Range.exactly(decode * plan.steps * frames).spread(spread),
            coded.num_bytes,
            rows,
        )
        if not LEVELS[settings.level].mixes:
            return candidate, None
        return candidate, _alone(model.tokenizer.tokens.decode(tokens.reshape(-1)), coded.bits)

    def _sample(
        self, model: LoadedModel, plan: RowPlan, trial: Trial, seconds: float, per_byte: float
    ) -> tuple[np.ndarray, list[float]] | None:
        """As many tokens of the beginnings of rows, (rows, steps), as are coded and decoded in the time.

        Also bits per byte of a fourth, a half and all of their steps.
        """
        import numpy as np

        trial.run(self._beginnings(model, _ROWS, _PROBE_STEPS, per_byte))  # the first run is slow: the mixer is loaded
        begun, is_one_frame = time.perf_counter(), self._places.size <= PIECE_BYTES
        rows, steps = _ROWS, _LEAST_STEPS // 4
        rates: list[float] = []
        step = 0.0
        while True:
            tokens = self._beginnings(model, rows, steps, per_byte)
            probe = len(rates) == 0
            coded = trial.run(tokens, decode=probe)
            if probe:
                step = coded.decode_seconds / steps
            rates.append(coded.bits / coded.num_bytes)
            work = coded.encode_seconds * plan.num_tokens / tokens.size + step * plan.steps
            if is_one_frame and (2 * work < seconds or 2 * tokens.size > plan.num_tokens):
                return None
            if len(rates) < 3:
                steps *= 2
                continue
            # Twice as much: coded, scored, decoded, with steps that become slower.
            needed = 2 * (1.6 * coded.encode_seconds + 2 * step * steps)
            if tokens.shape[1] < steps or needed > seconds - (time.perf_counter() - begun):
                return np.ascontiguousarray(tokens), rates[-3:]
            if 2 * steps <= min(_MOST_STEPS, plan.steps):
                steps *= 2
            elif rows < plan.num_rows:
                rows, steps, rates = min(2 * rows, plan.num_rows), steps // 4, []
            elif 2 * steps <= plan.steps:
                steps *= 2
            else:
                return np.ascontiguousarray(tokens), rates[-3:]

    def _beginnings(self, model: LoadedModel, rows: int, steps: int, per_byte: float) -> np.ndarray:
        """The first tokens of pieces that are spread over the text; pieces that have fewer are left out."""
        import numpy as np

        most = max(16, self._places.text_bytes // rows)
        size = min(most, int(2 * steps / per_byte) + 32)
        while True:
            found = [model.tokenizer.encode(piece) for piece in self._places.spread(rows, size)]
            enough = [ids[:steps] for ids in found if len(ids) >= steps]
            if 2 * len(enough) >= rows or steps <= 4:
                break
            if size == most:
                steps //= 2
            size = min(most, 2 * size)
        return np.stack(enough or [ids[: min(map(len, found))] for ids in found])

    def _in_windows(self, model: LoadedModel, window_bits: int) -> _Candidate:
        """By windows: nothing is learnt from one to the next, so that everything but the shape of steps is linear."""
        from ..windows import frames as window_frames
        from .trial import Trial

        full = window_frames.piece_bytes(window_bits)
        count = _WINDOW_TEXTS
        size, begun = max(256, window_bits // 2), time.perf_counter()
        while True:
            pieces = [piece for piece in self._places.spread(count, size) if piece]
            start = time.perf_counter()
            coded = window_frames.encode(model, pieces, window_bits, self._settings.model_reset, None)
            middle = time.perf_counter()
            frames = [frame for frame in coded if frame is not None]
            for header, payload in frames:
                window_frames.decode(model, header, payload, None)
            end = time.perf_counter()
            if 3 * (end - start) > self._seconds - (end - begun) or 2 * size > self._places.text_bytes // count:
                break
            size *= 2
        done = sum(map(len, pieces))
        rates, windows = [], 1
        for piece, frame in zip(pieces, coded, strict=True):
            record = None if frame is None else frame[0].windows
            # The last window is full by half, as a rule.
            bits = 0.0 if record is None else max(0.5, record.count - 0.5) * window_bits
            directory = 0 if frame is None or record is None else len(frame[1]) - record.data_bytes
            rates.append(8.0 if record is None else min(8.0, bits / len(piece) + 8 * directory / len(piece)))
            windows = max(windows, 0 if record is None else record.count)
        rate, factor = sum(rates) / len(rates), self._places.text_bytes / done
        error = 2 * standard_error(rates, [1] * len(rates))
        decode = (end - middle) * factor
        if self._settings.model_reset:
            # All windows of a frame are decoded in lockstep, and there are more in a full one.
            trial, more = Trial(model, False, 1, None), max(1.0, min(full, self._places.text_bytes) / size)
            many = trial.step_seconds(int(windows * more), _PROBE_STEPS)
            decode *= many / trial.step_seconds(windows, _PROBE_STEPS) / more
        return _Candidate(
            METHODS[WINDOWS],
            Range.exactly(rate * self._places.text_bytes / 8).spread(max(error, 0.02)),
            Range.exactly((middle - start) * factor).spread(2 * _LEAST_TIME_SPREAD),
            Range.exactly(decode).spread(2 * _LEAST_TIME_SPREAD),
            done,
            len(pieces),
        )

    # -- the sum -----------------------------------------------------------------------------------------------------

    def _estimate(self, best: _Candidate, model: LoadedModel | None) -> Estimate:
        noise = self._places.size - self._places.text_bytes
        header = headers.Header() if model is None else model.header(self._settings.prompt)
        size = best.size_bytes.scaled(1, noise + len(headers.pack_header(header)))
        most = self._places.size + _FRAME_BYTES * (1 + self._places.size // PIECE_BYTES)
        return Estimate(
            self._places.size,
            Range(*(float(math.ceil(min(number, most))) for number in size)),
            best.encode_seconds,
            best.decode_seconds,
            self._start_seconds,
            best.name,
            None if model is None else model.name,
            best.sampled_bytes,
            best.pieces,
            False,
        )


def _alone(data: bytes, bits_with_model: float) -> _Alone:
    from ..mixing.mixer import encode_bytes

    encode_bytes(data[:64])  # loads its machine code
    begun = time.perf_counter()
    _, bits = encode_bytes(data)
    return _Alone((time.perf_counter() - begun) / len(data), levels.model_helps(bits_with_model, bits))


def _later(
    trial: Trial, plan: RowPlan, rows: int, steps: int, step_seconds: float, context: int
) -> tuple[float, float]:
    """What a frame's rows, which are more and longer than those of a sample, cost.

    Args:
        plan: of the frame.
        rows, steps: of the sample.
        step_seconds: its mean step when decoding.

    Returns:
        Seconds more for each token when encoding, and seconds for each step when decoding.
    """
    import numpy as np

    length = min(plan.steps, context, _DEPTH)
    near = min(steps // 2, length)
    depths = sorted({near, min(512, length), length})
    at = [trial.step_seconds(plan.num_rows, depth) for depth in depths]
    beside = max(0.0, step_seconds - trial.step_seconds(rows, near))  # the coder's and the mixer's part
    reach = np.linspace(0, min(plan.steps, context), 64)
    step = float(np.interp(reach, depths, at).mean()) + beside * plan.num_rows / rows
    short = trial.token_seconds(max(1, 4096 // steps), steps)
    long = trial.token_seconds(1, max(length, 1))
    passes = 1.0
    if plan.steps > context:  # what a new context begins with goes through the model again
        again = -(-(plan.steps - context) // (context - plan.overlap)) * plan.overlap / plan.steps
        passes += again
        step += again * plan.num_rows * long
    return max(0.0, passes * long - short), step
