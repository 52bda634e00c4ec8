"""Rows of tokens through the compiled kernels without Python in between (native/lanes.h); must not know texts.

What codes the tokens comes as addresses of compiled functions. Threads of Python enter the library, each with buffers
of its own, and share out the work there.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import CorruptError
from ...system.threads import workers
from ..compiled import TokenGuesser, TokenSink, TokenSource
from .kernels import Library, Store, address

if TYPE_CHECKING:
    from ...format.plan import Rows as Counts
    from .forward import CpuCache, CpuForward

MAX_GUESSES = 7
"""MAX_GUESSES of native/lanes.h: tokens of a row that are guessed at once."""

MAX_TOKENS = 128
"""MAX_TOKENS of native/lanes.h: tokens that go through the layers together."""

_MASS_VALUES = 1 << 17
"""Masses that a thread computes before they are used: half a megabyte stays in the cache of a core."""

_MIN_MASS_ROWS, _LARGE_MASS_ROWS = 8, 64
"""Rows of masses at once below which reading the head takes the time, and how many there are instead."""

_P, _N = ctypes.c_void_p, ctypes.c_int64


class Rows(ctypes.Structure):
    """`struct Rows` of native/lanes.h."""

    _fields_ = [
        ("model", _P), ("forward", _P), ("masses", _P), ("cosines", _P * 2), ("sines", _P * 2), ("turned", _N * 2),
        ("stores", _P), ("inputs", _P),
        *((name, _N) for name in ("stride", "skipped", "origin", "rows", "full_steps", "long_rows", "first_place",
                                  "vocab", "start_token")),
    ]  # fmt: skip


PARTS = ("layers", "head", "take", "code")
"""Parts of the work: the model's layers; masses; the coder as it takes masses, and as it codes tokens."""


class Seconds(ctypes.Structure):
    """`struct Seconds` of native/lanes.h."""

    _fields_ = [(name, ctypes.c_double) for name in PARTS]


class Desk(ctypes.Structure):
    """`struct Desk` of native/lanes.h."""

    _fields_ = [
        *((name, _P) for name in ("room", "stores", "ids", "places", "hidden", "masses")), ("mass_rows", _N),
        ("of_sink", _P), ("seconds", _P),
    ]  # fmt: skip


class Sink(ctypes.Structure):
    """`struct Sink` of native/lanes.h."""

    _fields_ = [("context", _P), ("add", _P)]


class TokenCoder(ctypes.Structure):
    """`struct TokenCoder` of native/lanes.h."""

    _fields_ = [(name, _P) for name in ("context", "take", "begin", "decode")]


class Guesser(ctypes.Structure):
    """`struct Guesser` of native/lanes.h."""

    _fields_ = [(name, _P) for name in ("context", "learn", "guess", "worth")]


class Part(ctypes.Structure):
    """`struct Part` of native/lanes.h."""

    _fields_ = [
        *((name, _N) for name in ("first", "last", "next", "is_busy", "guesses", "right")),
        ("guess", _N * MAX_GUESSES), ("seconds", ctypes.c_double), ("masses", _P),
    ]  # fmt: skip


class Lane(ctypes.Structure):
    """`struct Lane` of native/lanes.h."""

    _fields_ = [(name, _N) for name in ("first", "last", "coded", "first_part", "last_part")]


class Experience(ctypes.Structure):
    """`struct Experience` of native/lanes.h."""

    _fields_ = [
        ("pass_seconds", ctypes.c_double * (MAX_GUESSES + 1)),
        *((name, ctypes.c_double) for name in ("tokens", "seconds")),
        *((name, _N) for name in ("passes", "read", "right")),
    ]


class Decoding(ctypes.Structure):
    """`struct Decoding` of native/lanes.h."""

    _fields_ = [
        ("rows", Rows), ("coder", TokenCoder), ("guesser", Guesser), ("lanes", _P), ("parts", _P),
        *((name, _N) for name in ("num_lanes", "last_step", "max_step", "turn", "step", "has_begun", "is_coding",
                                  "has_failed")),
        ("tokens", _P), ("max_guesses", _N), ("experience", Experience), ("sync", _P),
    ]  # fmt: skip


class _Functions:
    """The functions of native/lanes.cpp, which are the same for all instruction sets."""

    def __init__(self, library: Library) -> None:
        self.read, self.open, self.decode, self.close = (
            library.function(f"llmzip_lanes_{name}") for name in ("read", "open", "decode", "close")
        )
        self.read.argtypes, self.read.restype = (_P, _P, _P, _N, _N, _N, _N), None
        self.open.argtypes, self.open.restype = (_P,), ctypes.c_int
        self.decode.argtypes, self.decode.restype = (_P, _P), None
        self.close.argtypes, self.close.restype = (_P,), None


@functools.cache
def _functions(library: Library) -> _Functions:
    return _Functions(library)


class _Desk:
    """Buffers of one thread; they go back to the forward pass when it is done with them.

    Args:
        forward: lends the buffers.
        slots: of the cache.
        vocab_size: columns of masses.
        of_sink: what a sink needs of a thread, an object and its address; None for nothing.
    """

    def __init__(
        self, forward: CpuForward, slots: int, vocab_size: int, of_sink: tuple[Any, int] | None = None
    ) -> None:
        self._forward, self._buffers = forward, forward.take_buffers(slots)
        count = min(MAX_TOKENS, _MASS_VALUES // vocab_size)
        count = _LARGE_MASS_ROWS if count < _MIN_MASS_ROWS else count
        stores = (Store * forward.config.num_layers)()
        arrays: tuple[np.ndarray, ...] = (
            np.empty((2, MAX_TOKENS), dtype=np.int64),
            np.empty((MAX_TOKENS, forward.config.hidden_size), dtype=np.float32),
            np.empty((count, vocab_size), dtype=np.int32),
        )
        self._keep, self._seconds = (stores, arrays, of_sink), Seconds()
        ids, hidden, masses = map(address, arrays)
        self.structure = Desk(
            self._buffers.address, ctypes.addressof(stores), ids, ids + 8 * MAX_TOKENS, hidden, masses,
            count, None if of_sink is None else of_sink[1], ctypes.addressof(self._seconds),
        )  # fmt: skip

    def close(self) -> None:
        """Gives the buffers back, and notes what the work took."""
        seconds = {name: getattr(self._seconds, name) for name in PARTS}
        self._forward.give_back(self._buffers, seconds)


class Limits(NamedTuple):
    """What an engine tells its rows.

    Attributes:
        vocab_size, start_token, context: the engine's.
        extend: makes the rotary tables reach to a position; threads may call it at once.
    """

    vocab_size: int
    start_token: int
    context: int
    extend: Callable[[int], None]


class CpuRows:
    """Rows of a frame in the compiled passes; `CompiledRows` describes it.

    Args:
        forward: the compiled passes.
        cache, inputs, counts, skipped: as for `base.Engine.compiled_rows`.
        limits: of the engine.
    """

    def __init__(
        self, forward: CpuForward, cache: CpuCache, inputs: np.ndarray, counts: Counts, skipped: int, limits: Limits
    ) -> None:
        if not (inputs.flags.c_contiguous and inputs.dtype == np.int64 and len(inputs) == counts.num_rows):
            raise ValueError(f"inputs of shape {inputs.shape} and type {inputs.dtype} for {counts.num_rows} rows")
        self.forward, self.cache, self.counts, self.vocab_size = forward, cache, counts, limits.vocab_size
        self.functions = _functions(forward.library)
        self._inputs, self._skipped, self._limits = inputs, skipped, limits
        self._keep: Any = None

    def room(self, step: int) -> int:
        """Returns how many inputs from a step's on fit into the cache; positions move if they must."""
        length = self.cache.length
        slots: list[int] = [layer.key_scale.shape[2] - layer.slot(length, 1) for layer in self.cache.layers]
        return min(self._limits.context - length, int(self._inputs.shape[1]) - self._skipped - step, *slots)

    def structure(self, step: int, positions: int, first_place: int = 0) -> Rows:
        """Describes the rows to the library, until the cache changes other than by the library.

        Args:
            step: whose input is the cache's next.
            positions: that will be read; at most `room(step)`.
            first_place: of the first row's first token among those that a sink gets.
        """
        length, counts, library, limits = self.cache.length, self.counts, self.forward.library, self._limits
        limits.extend(length + positions)
        tables = [rope.at(0, length + positions) for rope in self.forward.ropes]
        cosines, sines = ((_P * 2)(*(address(pair[part]) for pair in tables)) for part in (0, 1))
        stores = self.cache.stores(0, counts.num_rows)
        for store, layer in zip(stores, self.cache.layers, strict=True):
            store.slot = -layer.begin
        self._keep = tables
        return Rows(
            ctypes.addressof(self.forward.model), library.address("forward"), library.address("masses"), cosines, sines,
            (_N * 2)(*(rope.pairs for rope in self.forward.ropes)), ctypes.addressof(stores), address(self._inputs),
            self._inputs.shape[1], self._skipped, self._skipped + step - length, counts.num_rows, counts.full_steps,
            counts.long_rows, first_place, limits.vocab_size, limits.start_token,
        )  # fmt: skip

    def read(self, sink: TokenSink, first_step: int, last_step: int, first_place: int) -> None:
        """Reads the inputs of some steps, at most `room(first_step)`, as `CompiledRows.read`."""
        rows = self.structure(first_step, last_step - first_step, first_place)
        desk = _Desk(self.forward, self.cache.slots, self.vocab_size, sink.new_room())
        try:
            self.functions.read(
                ctypes.byref(rows), ctypes.byref(Sink(sink.context, sink.add)), ctypes.byref(desk.structure), 0,
                self.counts.num_rows, first_step, last_step,
            )  # fmt: skip
        finally:
            desk.close()
        self.cache.length += last_step - first_step

    def decoding(
        self, source: TokenSource, unit: int, threads: int, guesser: TokenGuesser | None = None
    ) -> CpuDecoding:
        """Returns a decoder of the rows' tokens, as `CompiledRows.decoding`."""
        return CpuDecoding(self, source, unit, threads, guesser)


_LANES_PER_THREAD = 2
"""Number of lanes for each thread: one is in the model when another goes to the coder."""


class CpuDecoding:
    """Decodes the tokens of a frame's rows, as `CompiledDecoding`; used as a context.

    Args:
        rows: the rows.
        source: decodes tokens from masses.
        unit: it takes rows in multiples of so many.
        threads: to use at most.
        guesser: guesses tokens where there is a thread for each row.
    """

    def __init__(
        self, rows: CpuRows, source: TokenSource, unit: int, threads: int, guesser: TokenGuesser | None
    ) -> None:
        self._rows = rows
        lanes = _lanes(rows.counts.num_rows, unit, threads)
        parts = list(itertools.chain.from_iterable(lanes))
        guesses = guesser is not None and all(last - first == 1 for first, last in parts)
        # A part's masses after the token that is known, and after each guess.
        self._masses = np.empty((len(parts) if guesses else 0, MAX_GUESSES + 1, rows.vocab_size), dtype=np.int32)
        self._parts = (Part * len(parts))(*(Part(first=first, last=last) for first, last in parts))
        for part, masses in zip(self._parts, self._masses, strict=False):
            part.masses = address(masses)
        ends = list(itertools.accumulate(map(len, lanes)))
        self._lanes = (Lane * len(lanes))(
            *(Lane(lane[0][0], lane[-1][1], 0, end - len(lane), end) for lane, end in zip(lanes, ends, strict=True))
        )
        self._tokens = np.empty(rows.counts.num_rows, dtype=np.int64)
        self._threads = min(threads, len(parts))
        self._decoding = Decoding(
            coder=TokenCoder(source.context, source.take, source.begin, source.decode),
            lanes=ctypes.addressof(self._lanes), parts=ctypes.addressof(self._parts), num_lanes=len(lanes),
            tokens=address(self._tokens), max_guesses=MAX_GUESSES,
        )  # fmt: skip
        if guesser is not None and guesses:
            self._decoding.guesser = Guesser(guesser.context, guesser.learn, guesser.guess, guesser.worth)
        self._desks: list[_Desk] = []

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self._rows.counts.num_rows

    @property
    def step(self) -> int:
        """The step that is decoded next."""
        step: int = self._decoding.step
        return step

    @property
    def experience(self) -> Experience:
        """How passes with guesses went so far."""
        experience: Experience = self._decoding.experience
        return experience

    def advance(self, last_step: int) -> int:
        """Decodes up to a step, or as far as the cache has room; returns the step that was reached.

        Raises:
            CorruptError: no encoder wrote this.
        """
        decoding, step = self._decoding, self._decoding.step
        room = self._rows.room(step)
        last_step = min(last_step, step + room)
        decoding.rows = self._rows.structure(step, room)
        decoding.last_step, decoding.max_step = last_step, step + room
        self._run()
        if decoding.has_failed:
            raise CorruptError("damaged: the compressed data fits no text")
        self._rows.cache.length += last_step - step
        return last_step

    def _run(self) -> None:
        """Lets all threads in; returns when none is inside any more."""
        decode, reference = self._rows.functions.decode, ctypes.byref(self._decoding)
        if self._threads == 1:
            decode(reference, ctypes.byref(self._desks[0].structure))
            return
        futures: list[Future[Any]] = []
        try:
            futures += [workers.submit(decode, reference, ctypes.byref(desk.structure)) for desk in self._desks]
            for future in futures:
                future.result()
        finally:
            # Interrupted: the others stop soon, and must not find their memory gone.
            if not all(future.done() for future in futures):
                self._decoding.has_failed = 1
            for future in futures:
                if not future.cancel():
                    future.exception()

    def __enter__(self) -> CpuDecoding:
        rows = self._rows
        if not rows.functions.open(ctypes.byref(self._decoding)):
            raise MemoryError
        for _ in range(self._threads):
            self._desks.append(_Desk(rows.forward, rows.cache.slots, rows.vocab_size))
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.functions.close(ctypes.byref(self._decoding))
        while self._desks:
            self._desks.pop().close()


def _lanes(rows: int, unit: int, threads: int) -> list[list[tuple[int, int]]]:
    """Cuts rows into lanes, and each lane into the parts that go through the model on a thread: first rows and ends.

    With few rows there is one lane, and nothing to compute while it is coded; then all threads share it.
    """
    count = max(1, min(rows // unit, _LANES_PER_THREAD * threads))
    borders = [rows // unit * n // count * unit for n in range(count)] + [rows]
    lanes = []
    for first, last in itertools.pairwise(borders):
        parts = min(-(-threads // count), last - first)
        cuts = [first + (last - first) * n // parts for n in range(parts + 1)]
        lanes.append(list(itertools.pairwise(cuts)))
    return lanes
