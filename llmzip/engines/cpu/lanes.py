"""Rows of tokens through the compiled kernels without Python in between (native/lanes.h); must not know texts.

What codes the tokens comes as addresses of compiled functions. Threads of Python enter the library, each with buffers
of its own, and share out the work there.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...system.threads import workers
from ..compiled import FrameRows, TokenGuesser, TokenSink
from .kernels import MAX_TOKENS, Library, Store, address

if TYPE_CHECKING:
    from ...format.plan import Rows as Counts
    from .forward import CpuCache, CpuForward

MAX_GUESSES = 7
"""MAX_GUESSES of native/lanes.h: tokens of a row that are guessed at once."""

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
        *(
            (name, _N)
            for name in (
                "first", "last", "first_lane", "last_lane", "next", "is_busy", "guesses", "right", "is_ahead",
            )
        ),
        ("guess", _N * MAX_GUESSES), ("seconds", ctypes.c_double), ("masses", _P),
    ]  # fmt: skip


class Lane(ctypes.Structure):
    """`struct Lane` of native/lanes.h."""

    _fields_ = [
        (name, _N)
        for name in ("first", "last", "frame", "full_steps", "long_last", "coded", "first_part", "last_part")
    ]  # fmt: skip


class Frame(ctypes.Structure):
    """`struct Frame` of native/lanes.h."""

    _fields_ = [
        ("coder", TokenCoder),
        *(
            (name, _N)
            for name in (
                "first_row", "first_lane", "last_lane", "steps", "turn", "step", "has_begun", "is_coding", "has_failed",
            )
        ),
    ]  # fmt: skip


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
        ("rows", Rows), ("guesser", Guesser), ("frames", _P), ("lanes", _P), ("parts", _P),
        *((name, _N) for name in ("num_frames", "num_parts", "last_step", "max_step", "is_stopped")),
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

    def decoding(self, frames: Sequence[FrameRows], threads: int, guesser: TokenGuesser | None = None) -> CpuDecoding:
        """Returns a decoder of the rows' tokens, as `CompiledRows.decoding`."""
        return CpuDecoding(self, frames, threads, guesser)


_LANES_PER_THREAD = 2
"""Number of lanes for each thread: one is in the model when another goes to the coder."""

_MAX_LANES_PER_THREAD = 8
"""Number of them where they have MAX_TOKENS rows all the same: shorter ones leave threads less to wait for."""

_MANY_ROWS = 64
"""Rows for each thread from which on two smaller parts of them are no slower in the model than one."""


class CpuDecoding:
    """Decodes the tokens of rows, as `CompiledDecoding`; used as a context.

    Args:
        rows: the rows.
        frames: to which they belong, in the rows' order.
        threads: to use at most.
        guesser: guesses tokens where there is a thread for each row of a single frame.
    """

    def __init__(self, rows: CpuRows, frames: Sequence[FrameRows], threads: int, guesser: TokenGuesser | None) -> None:
        self._rows, self._step = rows, 0
        self._frames = (Frame * len(frames))()
        lanes = _lanes(frames, self._frames, threads)
        parts = _parts(lanes, frames, threads)
        guesses = guesser is not None and len(frames) == 1 and all(part.last - part.first == 1 for part in parts)
        # A part's masses after the token that is known, and after each guess.
        self._masses = np.empty((len(parts) if guesses else 0, MAX_GUESSES + 1, rows.vocab_size), dtype=np.int32)
        for part, masses in zip(parts, self._masses, strict=False):
            part.masses = address(masses)
        self._lanes, self._parts = (Lane * len(lanes))(*lanes), (Part * len(parts))(*parts)
        self._tokens = np.empty(rows.counts.num_rows, dtype=np.int64)
        self._threads = min(threads, len(parts))
        self._decoding = Decoding(
            frames=ctypes.addressof(self._frames), lanes=ctypes.addressof(self._lanes),
            parts=ctypes.addressof(self._parts), num_frames=len(frames), num_parts=len(parts),
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
        return self._step

    @property
    def experience(self) -> Experience:
        """How passes with guesses went so far."""
        experience: Experience = self._decoding.experience
        return experience

    def has_failed(self, frame: int) -> bool:
        """Whether no encoder wrote a frame, as far as it was decoded."""
        return bool(self._frames[frame].has_failed)

    def sound_steps(self, frame: int) -> int:
        """Returns how many steps of a frame had been decoded at least when it failed."""
        return max(int(self._frames[frame].step) - 1, 0)  # the step that failed may have been counted

    def advance(self, last_step: int) -> int:
        """Decodes up to a step, or as far as the cache has room; returns the step that was reached."""
        decoding, step = self._decoding, self._step
        room = self._rows.room(step)
        last_step = min(last_step, step + room)
        decoding.rows = self._rows.structure(step, room)
        decoding.last_step, decoding.max_step = last_step, step + room
        self._run()
        self._rows.cache.length += last_step - step
        self._step = last_step
        return last_step

    def _run(self) -> None:
        """Lets all threads in, this one among them; returns when none is inside any more."""
        decode, reference = self._rows.functions.decode, ctypes.byref(self._decoding)
        own, *others = (ctypes.byref(desk.structure) for desk in self._desks)
        futures: list[Future[Any]] = []
        try:
            for desk in others:
                futures.append(workers.submit(decode, reference, desk))
            decode(reference, own)
        except BaseException:
            self._decoding.is_stopped = 1
            raise
        finally:
            # Others may still be inside, and must find their memory there.
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


def _lanes(frames: Sequence[FrameRows], structures: ctypes.Array[Frame], threads: int) -> list[Lane]:
    """Cuts the rows of frames into lanes, several for each thread where there are rows enough; describes the frames."""
    lanes: list[Lane] = []
    row = 0
    for number, (frame, structure) in enumerate(zip(frames, structures, strict=True)):
        counts, source, units = frame.counts, frame.source, frame.counts.num_rows // frame.unit
        count = max(_LANES_PER_THREAD, min(_MAX_LANES_PER_THREAD, counts.num_rows // (MAX_TOKENS * threads)))
        count = max(1, min(units, count * threads))
        borders = [row + units * n // count * frame.unit for n in range(count)] + [row + counts.num_rows]
        structure.coder = TokenCoder(source.context, source.take, source.begin, source.decode)
        structure.first_row, structure.steps = row, counts.steps
        structure.first_lane = structure.turn = len(lanes)
        lanes += [
            Lane(first, last, number, counts.full_steps, max(first, min(last, row + counts.long_rows)))
            for first, last in itertools.pairwise(borders)
        ]
        structure.last_lane = len(lanes)
        row += counts.num_rows
    return lanes


def _parts(lanes: list[Lane], frames: Sequence[FrameRows], threads: int) -> list[Part]:
    """Distributes lanes over parts.

    A part is a lane, or where there are many frames several whole ones. With few rows in one frame there is one lane,
    and nothing to compute while it is coded; then all threads share it.
    """
    if len(frames) > 1:
        rows = lanes[-1].last
        size = max(1, -(-rows // (_LANES_PER_THREAD * threads if rows >= _MANY_ROWS * threads else threads)))
        parts: list[Part] = []
        for number, lane in enumerate(lanes):
            if parts and lane.last - parts[-1].first <= size:
                parts[-1].last, parts[-1].last_lane = lane.last, number + 1
            else:
                parts.append(Part(lane.first, lane.last, number, number + 1))
            lane.first_part, lane.last_part = len(parts) - 1, len(parts)
        return parts
    parts = []
    for number, lane in enumerate(lanes):
        count = min(-(-threads // len(lanes)), lane.last - lane.first)
        cuts = [lane.first + (lane.last - lane.first) * n // count for n in range(count + 1)]
        lane.first_part, lane.last_part = len(parts), len(parts) + count
        parts += [Part(first, last, number, number + 1) for first, last in itertools.pairwise(cuts)]
    return parts
