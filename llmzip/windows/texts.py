"""Equal-Info windows of texts: tokens through a model into windows and back; must not know bytes of text or frames.

With a fresh context each window starts as a row does: from the start token alone. Windows of one text then depend on
each other only in where they begin, so many texts are encoded side by side, and all windows are decoded at once. With
a kept context a text is one row (format section 4d).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..engines.arrays import Array
from ..engines.base import Engine
from ..engines.frequencies import Frequencies
from ..errors import CorruptError, ResourceError, SettingsError
from ..format.plan import RowPlan
from ..inference.passes import NOTHING, RESTART_CHUNK, History, masses_in_parts, prefill, restart, token_masses
from ..inference.progress import ByteMeter, TokenProgress
from ..system.memory import free_bytes
from .codes import WindowReader, WindowWriter, pack, precision_bits

_FIRST_POSITIONS = 16
"""Positions up to which windows are decoded before those that are over are dropped."""

_MIN_STEPS = 4
"""Steps that windows take together before some are put aside, because the model then reads again what is known."""

_MAX_CACHE_BYTES = 1 << 30
"""Memory of the windows that are decoded at once, 1 GiB."""


class Writer(Protocol):
    """Packs tokens into windows; `codes.WindowWriter` is the one that the format has."""

    def add(self, left: int, right: int) -> bool:
        """Takes a token by its cumulative frequencies; returns False if the window has no room for it."""

    def close(self, full: bool) -> tuple[int, int]:
        """Ends the window; returns its code, and how many of the tokens taken it holds, the first ones."""


@dataclass(frozen=True)
class DecodedTokens:
    """The tokens of n windows.

    Attributes:
        tokens: n arrays, (t,) int64, the tokens of each window.
        spare_bits: (n,) float64, bits that each window did not need.
    """

    tokens: list[np.ndarray]
    spare_bits: np.ndarray


@dataclass(frozen=True)
class Windows:
    """A text as n windows.

    Attributes:
        data: the windows one after the other, as bits.
        counts: (n,) int64, tokens of each window.
    """

    data: bytes
    counts: np.ndarray


def check_engine(engine: Engine[Any], window_bits: int) -> None:
    """Checks that windows can be made with an engine.

    Raises:
        SettingsError: W is too small for the vocabulary, or the engine gives the same bits only step by step.
    """
    if engine.stepwise:
        raise SettingsError("windows need the exact engine")
    min_bits = (engine.vocab_size - 1).bit_length() + 1
    if precision_bits(window_bits) < min_bits:
        raise SettingsError(
            f"windows of {window_bits} bits are too small for a vocabulary of {engine.vocab_size:,} tokens: "
            f"at least {min_bits}"
        )


def encode(
    engine: Engine[Any],
    texts: list[np.ndarray],
    window_bits: int,
    *,
    fresh: bool,
    progress: TokenProgress | None = None,
    make_writer: Callable[[int], Writer] = WindowWriter,
) -> list[Windows]:
    """Cuts texts into windows.

    Args:
        engine: the model.
        texts: tokens of each text, (N,) int64, N >= 1; the texts are encoded side by side.
        window_bits: W, 16 to 65,536.
        fresh: whether each window starts from an empty context.
        progress: called with tokens that were just encoded.
        make_writer: another rule for the end of a window, to compare with (benchmarks/window_rules.py).

    Raises:
        SettingsError: as `check_engine`.
    """
    check_engine(engine, window_bits)
    streams = [_Stream(tokens, make_writer(window_bits)) for tokens in texts]
    frequencies = engine.readout(precision_bits(window_bits)).frequencies
    if fresh:
        _encode_fresh(engine, frequencies, streams, progress)
    else:
        for stream in streams:
            bounds = np.empty((len(stream.tokens), 2), dtype=np.int64)
            for places, masses in token_masses(engine, stream.tokens, _kept_plan(engine, len(bounds)), progress):
                bounds[places] = frequencies.bounds(masses, stream.tokens[places])
            pairs = bounds.tolist()
            while stream.at < len(pairs):
                full = any(not stream.writer.add(*pairs[place]) for place in range(stream.at, len(pairs)))
                stream.close(full)
    return [Windows(pack(stream.codes, window_bits), np.array(stream.counts, dtype=np.int64)) for stream in streams]


class _Stream:
    """One text while it is cut into windows."""

    def __init__(self, tokens: np.ndarray, writer: Writer) -> None:
        self.tokens = tokens
        self.codes: list[int] = []
        self.counts: list[int] = []
        self.at = 0  # tokens in windows that are closed
        self.guess = 2  # tokens that the next window may hold
        self.writer = writer

    def close(self, full: bool) -> None:
        """Ends the window and notes its code and its tokens."""
        code, count = self.writer.close(full)
        self.codes.append(code)
        self.counts.append(count)
        self.at += count


def _kept_plan(engine: Engine[Any], num_tokens: int) -> RowPlan:
    """Returns the one row that a text with a kept context is."""
    return RowPlan(num_tokens, 1, max(1, engine.context // 2))


def _encode_fresh(
    engine: Engine[Any],
    frequencies: Frequencies,
    streams: list[_Stream],
    progress: TokenProgress | None,
) -> None:
    """Encodes texts one window of each at a time.

    How many tokens a window holds shows only afterwards: a guessed number goes through the model, and if the window
    holds more, they go through again, followed by others.
    """
    todo = streams
    while todo:
        todo = sorted((stream for stream in todo if stream.at < len(stream.tokens)), key=lambda stream: stream.guess)
        begin = 0
        while begin < len(todo):
            end = begin + 1
            # Guesses that differ by at most a factor of 2 go together, as far as they fit into one call.
            while end < len(todo) and (end + 1 - begin) * todo[end].guess <= engine.batch_tokens:
                if todo[end].guess > 2 * todo[begin].guess:
                    break
                end += 1
            _encode_windows(engine, frequencies, todo[begin:end], progress)
            begin = end


def _encode_windows(
    engine: Engine[Any],
    frequencies: Frequencies,
    streams: list[_Stream],
    progress: TokenProgress | None,
) -> None:
    """Encodes the next window of some texts; doubles the guess for those whose window holds more."""
    length = min(engine.context, max(stream.guess for stream in streams))
    targets = np.zeros((len(streams), length), dtype=np.int64)
    lengths = []
    for number, stream in enumerate(streams):
        part = stream.tokens[stream.at : stream.at + length]
        targets[number, : len(part)] = part
        lengths.append(len(part))
    inputs = np.concatenate([np.full((len(streams), 1), engine.start_token), targets[:, :-1]], axis=1)
    open_rows = set(range(len(streams)))
    for columns, hidden in prefill(engine, inputs, 0):
        part = targets[:, columns]
        flat = part.reshape(-1)
        parts = [frequencies.bounds(masses, flat[some]) for some, masses in masses_in_parts(engine, hidden)]
        bounds = np.concatenate(parts).reshape(*part.shape, 2)
        for row in list(open_rows):
            stream = streams[row]
            for left, right in bounds[row, : max(0, lengths[row] - columns.start)].tolist():
                if not stream.writer.add(left, right):
                    open_rows.remove(row)
                    _close(stream, progress, full=True)
                    break
        if not open_rows:
            return
    for row in open_rows:
        stream = streams[row]
        if stream.at + lengths[row] == len(stream.tokens) or lengths[row] == engine.context:
            _close(stream, progress, full=False)
        else:
            stream.writer.close(full=False)  # given up
            stream.guess = 2 * length


def _close(stream: _Stream, progress: TokenProgress | None, *, full: bool) -> None:
    """Ends a text's window and guesses how long the next one will be."""
    begin = stream.at
    stream.close(full)
    # Guesses follow the windows' lengths, and stay a quarter above them.
    stream.guess = max(2, (stream.guess + stream.counts[-1] + stream.counts[-1] // 2) // 2 + 1)
    if progress is not None:
        progress(stream.tokens[begin : stream.at])


class WindowDecoder:
    """Turns windows back into tokens, with the model that encoded them.

    Args:
        engine: the model.
        window_bits: W, 16 to 65,536.
        meter: counts the bytes of all tokens that are decoded, and limits them.

    Raises:
        SettingsError: as `check_engine`.
    """

    def __init__(self, engine: Engine[Any], window_bits: int, meter: ByteMeter) -> None:
        check_engine(engine, window_bits)
        self._engine, self._window_bits, self._meter = engine, window_bits, meter
        self._frequencies = engine.readout(precision_bits(window_bits)).frequencies

    def fresh(self, data: bytes, windows: np.ndarray, max_tokens: np.ndarray) -> DecodedTokens:
        """Decodes windows that each start from an empty context, many at once.

        Args:
            data: bits; window i begins at bit i W.
            windows: (n,) int64, numbers of those to decode.
            max_tokens: (n,) int64, tokens that each window holds at most; a reader knows it of a text's last one.

        Raises:
            CorruptError: they stand for more bytes than the meter allows.
            ResourceError: there is not enough memory.
        """
        max_tokens = np.minimum(max_tokens, self._engine.context)
        reader = WindowReader(data, self._window_bits, windows)
        tokens = [NOTHING] * len(windows)
        # Windows that are not over, by the number of tokens that are known of each.
        waiting: dict[int, list[np.ndarray]] = {0: [np.arange(len(windows))]}
        while waiting:
            known = min(waiting)
            places = np.concatenate(waiting.pop(known))
            positions = min(self._engine.context, max(_FIRST_POSITIONS, 2 * known))
            size = self._windows_at_once(positions)
            for part in (places[n : n + size] for n in range(0, len(places), size)):
                known_tokens = np.stack([tokens[place] for place in part])
                rows, counts, rest = self._extend(reader, part, known_tokens, max_tokens, positions)
                for place, row, count in zip(part, rows, counts, strict=True):
                    tokens[place] = row[:count]
                self._meter.add(np.concatenate([tokens[place][known:] for place in part]))
                if len(rest):
                    waiting.setdefault(len(tokens[rest[0]]), []).append(rest)
        return DecodedTokens(tokens, reader.spare_bits())

    def kept(self, data: bytes, num_windows: int, num_tokens: int) -> DecodedTokens:
        """Decodes all windows of a text whose context was kept, one token after the other.

        Args:
            data: bits; window i begins at bit i W.
            num_windows, num_tokens: of the whole text.

        Raises:
            CorruptError: the windows do not hold that many tokens, or stand for more bytes than the meter allows.
        """
        history = History(self._engine, _kept_plan(self._engine, num_tokens), NOTHING)
        reader = WindowReader(data, self._window_bits, np.arange(num_windows))
        tokens = np.empty(num_tokens, dtype=np.int64)
        begins, window = [0], 0
        for step in range(num_tokens):
            masses = history.step(step)
            targets, over = reader.targets(np.array([window]))
            if over[0]:
                begins.append(step)
                window += 1
                if window == num_windows or begins[-2] == step:
                    raise CorruptError(f"damaged: {num_windows} windows do not hold {num_tokens} tokens")
                targets, over = reader.targets(np.array([window]))
            tokens[step : step + 1] = self._read(reader, np.array([window]), targets, masses)
            history.take(step, tokens[step : step + 1])
            self._meter.add(tokens[step : step + 1])
        if window + 1 != num_windows:
            raise CorruptError(f"damaged: {num_tokens} tokens do not fill {num_windows} windows")
        return DecodedTokens(np.split(tokens, begins[1:]), reader.spare_bits())

    def _read(self, reader: WindowReader, places: np.ndarray, targets: np.ndarray, masses: Array) -> np.ndarray:
        """Reads the next token of some windows.

        Args:
            reader: the windows.
            places: (k,) int64, which of the reader's windows; none of them is over.
            targets: (k,) int64, what the reader gives for them.
            masses: (k, V) int32, what the model expects of them.

        Returns:
            (k,) int64, the tokens.
        """
        tokens, bounds = self._frequencies.find(masses, targets)
        reader.take(places, *bounds.T)
        return tokens

    def _windows_at_once(self, positions: int) -> int:
        """Returns how many windows of up to `positions` inputs go through the model together.

        Raises:
            ResourceError: there is not enough memory for one.
        """
        engine = self._engine
        each, free = engine.step_bytes(1, RESTART_CHUNK, positions), free_bytes(engine.device)
        if free is not None and each > free:
            raise ResourceError(
                f"decoding a window needs {each / 1e9:.1f} GB of memory on {engine.device}, "
                f"{free / 1e9:.1f} GB are free"
            )
        return max(1, min(_MAX_CACHE_BYTES, (free or _MAX_CACHE_BYTES) // 2) // each)

    def _extend(
        self, reader: WindowReader, places: np.ndarray, known: np.ndarray, max_tokens: np.ndarray, positions: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads on in some windows until most of them are over or `positions` inputs are used up.

        Args:
            reader: the windows.
            places: (k,) int64, which of the reader's windows.
            known: (k, t) int64, the tokens that have been read from them.
            max_tokens: (n,) int64, tokens that each of the reader's windows holds at most.
            positions: inputs of each window, at most.

        Returns:
            (k, positions) int64, tokens; (k,) int64, how many of them each window has so far; and (m,) int64, the
            places of windows that are not over.
        """
        engine, begin = self._engine, known.shape[1]
        tokens = np.zeros((len(places), positions), dtype=np.int64)
        tokens[:, :begin] = known
        counts = np.full(len(places), begin, dtype=np.int64)
        inputs = np.concatenate([np.full((len(places), 1), engine.start_token), tokens], axis=1)
        cache = engine.new_cache(len(places), RESTART_CHUNK, positions)
        if begin:
            restart(engine, cache, inputs[:, :begin])
        rows = np.flatnonzero(max_tokens[places] > begin)
        at = begin
        while at < positions and len(rows):
            hidden = engine.forward(inputs[:, at : at + 1], cache)[:, 0]
            targets, over = reader.targets(places[rows])
            rows, targets = rows[~over], targets[~over]
            if not len(rows):
                break
            masses = engine.masses(hidden[rows])
            tokens[rows, at] = inputs[rows, at + 1] = self._read(reader, places[rows], targets, masses)
            at += 1
            counts[rows] = at
            rows = rows[max_tokens[places[rows]] > at]
            if 2 * len(rows) <= len(places) and at > begin + _MIN_STEPS:
                break  # the others may continue together with more
        return tokens, counts, places[rows]
