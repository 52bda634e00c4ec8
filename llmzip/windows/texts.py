"""Tokens to Equal-Info windows and back, through a model; must not know text, files or the byte format.

With a fresh context each window starts as a row does: from the start token alone. Windows of one text then depend on
each other only in where they begin, so many texts are encoded side by side, and all windows are decoded at once. With a
context that is kept, a text is one row (format section 4d).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ..engines.base import Engine
from ..engines.frequencies import Frequencies
from ..errors import CorruptError, ResourceError, SettingsError
from ..format.plan import RowPlan
from ..inference.byte_limit import ByteLimit
from ..inference.passes import NOTHING, RESTART_CHUNK, History, masses_in_parts, prefill, restart, token_masses
from ..system.memory import free_bytes
from .codes import WindowReader, WindowWriter, pack, precision_bits

_FIRST_POSITIONS = 16
"""Positions that windows are decoded to before those that are over are dropped."""

_LEAST_STEPS = 4
"""Steps that windows go together before some are put aside: each time, what is known is read anew."""

_MOST_CACHE_BYTES = 1 << 30


class Writer(Protocol):
    """Takes tokens into windows; `windows.WindowWriter` says how."""

    def add(self, left: int, right: int) -> bool:
        """Takes a token, or refuses it."""

    def close(self, full: bool) -> tuple[int, int]:
        """Ends the window: its code, and how many of the tokens it holds, the first ones."""


@dataclass(frozen=True)
class Found:
    """What was read of windows.

    Attributes:
        tokens: (t,) int64 of each.
        spare_bits: (n,) float64, bits that each did not need.
    """

    tokens: list[np.ndarray]
    spare_bits: np.ndarray


@dataclass(frozen=True)
class Windows:
    """A text as windows.

    Attributes:
        data: the windows one behind the other.
        counts: (n,) int64, tokens of each.
    """

    data: bytes
    counts: np.ndarray


def check_engine(engine: Engine[Any], window_bits: int) -> None:
    """Refuses what windows cannot be made with.

    Raises:
        SettingsError: W is too small for the vocabulary, or the engine gives the same bits only step by step.
    """
    if engine.stepwise:
        raise SettingsError("windows need the exact engine")
    least = (engine.vocab_size - 1).bit_length() + 1
    if precision_bits(window_bits) < least:
        raise SettingsError(
            f"windows of {window_bits} bits are too small for a vocabulary of {engine.vocab_size:,} tokens: "
            f"at least {least}"
        )


def encode(
    engine: Engine[Any],
    texts: list[np.ndarray],
    window_bits: int,
    fresh: bool,
    progress: Callable[[np.ndarray], None] | None = None,
    make_writer: Callable[[int], Writer] = WindowWriter,
) -> list[Windows]:
    """Cuts texts into windows.

    Args:
        engine: the model.
        texts: (N,) int64 tokens of each, N >= 1; they are encoded side by side.
        window_bits: W, 16 to 65,536.
        fresh: each window starts from an empty context.
        progress: called with tokens that were just done.
        make_writer: another rule for the end of a window, to compare with (benchmarks/window_rules.py).

    Raises:
        SettingsError: as `check_engine`.
    """
    check_engine(engine, window_bits)
    streams = [_Stream(tokens, make_writer(window_bits)) for tokens in texts]
    frequencies = Frequencies(engine.vocab_size, precision_bits(window_bits))
    if fresh:
        _encode_fresh(engine, frequencies, streams, progress)
    else:
        for stream in streams:
            bounds = np.empty((len(stream.tokens), 2), dtype=np.int64)
            for places, masses in token_masses(engine, stream.tokens, _kept_plan(engine, len(bounds)), progress):
                bounds[places] = _bounds(frequencies, masses, stream.tokens[places])
            pairs = bounds.tolist()
            while stream.at < len(pairs):
                full = any(not stream.writer.add(*pairs[place]) for place in range(stream.at, len(pairs)))
                stream.close(full)
    return [Windows(pack(stream.codes, window_bits), np.array(stream.counts, dtype=np.int64)) for stream in streams]


class _Stream:
    """One text on its way into windows."""

    def __init__(self, tokens: np.ndarray, writer: Writer) -> None:
        self.tokens = tokens
        self.codes: list[int] = []
        self.counts: list[int] = []
        self.at = 0  # tokens in windows that are closed
        self.guess = 2  # tokens that the next window may hold
        self.writer = writer

    def close(self, full: bool) -> None:
        code, count = self.writer.close(full)
        self.codes.append(code)
        self.counts.append(count)
        self.at += count


def _kept_plan(engine: Engine[Any], num_tokens: int) -> RowPlan:
    return RowPlan(num_tokens, 1, max(1, engine.context // 2))


def _bounds(frequencies: Frequencies, masses: torch.Tensor, tokens: np.ndarray) -> np.ndarray:
    return frequencies.bounds(masses, torch.from_numpy(tokens).to(masses.device)).cpu().numpy()


def _encode_fresh(
    engine: Engine[Any],
    frequencies: Frequencies,
    streams: list[_Stream],
    progress: Callable[[np.ndarray], None] | None,
) -> None:
    """One window of each text at a time.

    How many tokens it holds shows only afterwards: as many as are guessed go through the model, and if the window holds
    more, they go through again with others behind them.
    """
    todo = streams
    while todo:
        todo = sorted((stream for stream in todo if stream.at < len(stream.tokens)), key=lambda stream: stream.guess)
        begin = 0
        while begin < len(todo):
            end = begin + 1
            # Equal guesses and a little more go together; so does whatever fits into one call.
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
    progress: Callable[[np.ndarray], None] | None,
) -> None:
    """Tries the next window of some texts."""
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
        found = [_bounds(frequencies, masses, flat[some]) for some, masses in masses_in_parts(engine, hidden)]
        bounds = np.concatenate(found).reshape(*part.shape, 2)
        for row in list(open_rows):
            stream = streams[row]
            for left, right in bounds[row, : max(0, lengths[row] - columns.start)].tolist():
                if not stream.writer.add(left, right):
                    open_rows.remove(row)
                    _close(stream, True, progress)
                    break
        if not open_rows:
            return
    for row in open_rows:
        stream = streams[row]
        if stream.at + lengths[row] == len(stream.tokens) or lengths[row] == engine.context:
            _close(stream, False, progress)
        else:
            stream.writer.close(full=False)  # given up
            stream.guess = 2 * length


def _close(stream: _Stream, full: bool, progress: Callable[[np.ndarray], None] | None) -> None:
    begin = stream.at
    stream.close(full)
    # Guesses follow the windows' lengths, and stay a quarter above them.
    stream.guess = max(2, (stream.guess + stream.counts[-1] + stream.counts[-1] // 2) // 2 + 1)
    if progress is not None:
        progress(stream.tokens[begin : stream.at])


def decode(
    engine: Engine[Any],
    data: bytes,
    window_bits: int,
    windows: np.ndarray,
    most_tokens: np.ndarray,
    num_bytes: Callable[[np.ndarray], int],
    most_bytes: int,
    progress: Callable[[int], None] | None = None,
) -> Found:
    """The tokens of windows that each start from an empty context.

    Args:
        engine: the model that encoded them.
        data: bits; window i lies at bit i W.
        window_bits: W.
        windows: (n,) int64, numbers of those to decode.
        most_tokens: (n,) int64: what a window holds at most; a reader knows it of a text's last one.
        num_bytes: bytes that an array of tokens stands for.
        most_bytes: what all may stand for together: damaged windows must not fill the memory.
        progress: called with numbers of bytes.

    Raises:
        CorruptError: they stand for more.
        ResourceError: the memory does not do.
        SettingsError: as `check_engine`.
    """
    check_engine(engine, window_bits)
    frequencies = Frequencies(engine.vocab_size, precision_bits(window_bits))
    most_tokens = np.minimum(most_tokens, engine.context)
    reader = WindowReader(data, window_bits, windows)
    found = [NOTHING] * len(windows)
    # Windows that are not over, by the number of tokens that are known of each.
    waiting: dict[int, list[np.ndarray]] = {0: [np.arange(len(windows))]}
    limit = ByteLimit(num_bytes, most_bytes, progress)
    while waiting:
        known = min(waiting)
        places = np.concatenate(waiting.pop(known))
        positions = min(engine.context, max(_FIRST_POSITIONS, 2 * known))
        size = _windows_at_once(engine, positions)
        for part in (places[n : n + size] for n in range(0, len(places), size)):
            tokens, counts, rest = _decode_part(
                engine, frequencies, reader, part, np.stack([found[place] for place in part]), most_tokens, positions
            )
            for place, row, count in zip(part, tokens, counts, strict=True):
                found[place] = row[:count]
            limit.add(np.concatenate([found[place][known:] for place in part]))
            if len(rest):
                waiting.setdefault(len(found[rest[0]]), []).append(rest)
    return Found(found, reader.spare_bits())


def _windows_at_once(engine: Engine[Any], positions: int) -> int:
    """How many windows go through the model together.

    Raises:
        ResourceError: not even one does.
    """
    each, free = engine.step_bytes(1, RESTART_CHUNK, positions), free_bytes(engine.device)
    if free is not None and each > free:
        raise ResourceError(
            f"decoding a window needs {each / 1e9:.1f} GB of memory on {engine.device}, {free / 1e9:.1f} GB are free"
        )
    return max(1, min(_MOST_CACHE_BYTES, (free or _MOST_CACHE_BYTES) // 2) // each)


def _decode_part(
    engine: Engine[Any],
    frequencies: Frequencies,
    reader: WindowReader,
    places: np.ndarray,
    known: np.ndarray,
    most_tokens: np.ndarray,
    positions: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some windows, until most of them are over or `positions` inputs are used up.

    Args:
        places: (k,) int64, of the windows in the reader.
        known: (k, t) int64, the tokens that were read of them.

    Returns:
        (k, positions) int64 tokens, (k,) how many of them each window has so far, and places that are not over.
    """
    begin = known.shape[1]
    tokens = np.zeros((len(places), positions), dtype=np.int64)
    tokens[:, :begin] = known
    counts = np.full(len(places), begin, dtype=np.int64)
    inputs = np.concatenate([np.full((len(places), 1), engine.start_token), tokens], axis=1)
    cache = engine.new_cache(len(places), RESTART_CHUNK, positions)
    if begin:
        restart(engine, cache, inputs[:, :begin])
    rows = np.flatnonzero(most_tokens[places] > begin)
    at = begin
    while at < positions and len(rows):
        ids = torch.from_numpy(np.ascontiguousarray(inputs[:, at : at + 1])).to(engine.device)
        hidden = engine.forward(ids, cache)[:, 0]
        targets, over = reader.targets(places[rows])
        rows, targets = rows[~over], targets[~over]
        if not len(rows):
            break
        masses = engine.masses(hidden[torch.from_numpy(rows).to(hidden.device)])
        ids, bounds = frequencies.find(masses, torch.from_numpy(targets).to(masses.device))
        found = ids.cpu().numpy()
        left, right = bounds.cpu().numpy().T
        reader.take(places[rows], left, right)
        tokens[rows, at] = inputs[rows, at + 1] = found
        at += 1
        counts[rows] = at
        rows = rows[most_tokens[places[rows]] > at]
        if 2 * len(rows) <= len(places) and at > begin + _LEAST_STEPS:
            break  # the others may go on together with more
    return tokens, counts, places[rows]


def decode_kept(
    engine: Engine[Any],
    data: bytes,
    window_bits: int,
    num_windows: int,
    num_tokens: int,
    num_bytes: Callable[[np.ndarray], int],
    most_bytes: int,
    progress: Callable[[int], None] | None = None,
) -> Found:
    """The tokens of all windows of a text whose context was kept: as `decode`, one token after the other.

    Args:
        num_windows, num_tokens: of the text.

    Raises:
        CorruptError: the windows do not hold so many tokens, or they stand for more bytes.
    """
    check_engine(engine, window_bits)
    frequencies = Frequencies(engine.vocab_size, precision_bits(window_bits))
    history = History(engine, _kept_plan(engine, num_tokens), NOTHING)
    reader = WindowReader(data, window_bits, np.arange(num_windows))
    tokens = np.empty(num_tokens, dtype=np.int64)
    begins, window = [0], 0
    limit = ByteLimit(num_bytes, most_bytes, progress)
    for step in range(num_tokens):
        masses = history.step(step)
        targets, over = reader.targets(np.array([window]))
        if over[0]:
            begins.append(step)
            window += 1
            if window == num_windows or begins[-2] == step:
                raise CorruptError(f"damaged: {num_windows} windows do not hold {num_tokens} tokens")
            targets, over = reader.targets(np.array([window]))
        ids, bounds = frequencies.find(masses, torch.from_numpy(targets).to(masses.device))
        tokens[step : step + 1] = ids.cpu().numpy()
        left, right = bounds.cpu().numpy().T
        reader.take(np.array([window]), left, right)
        history.take(step, tokens[step : step + 1])
        limit.add(tokens[step : step + 1])
    if window + 1 != num_windows:
        raise CorruptError(f"damaged: {num_tokens} tokens do not fill {num_windows} windows")
    return Found(np.split(tokens, begins[1:]), reader.spare_bits())
