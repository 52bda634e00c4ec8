"""The walk by numba, where the library was not built; must not know engines, rows of text or files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..system.forks import whole
from .coder import Decoder
from .compiled import announce_compiling
from .masses import path_logits, take_masses
from .predictor import new_decision
from .state import GROUP_ROWS, Known, Learned, Texts, new_masses
from .vocabulary import Shape
from .walk import new_scratch, walk


class JittedWalk:
    """Walks over all decisions as `library.NativeWalk` does, compiled by numba."""

    def __init__(
        self,
        learned: Learned,
        texts: Texts,
        shape: Shape,
        known: Known,
        with_model: bool,
        decisions: int | None = None,
        payload: bytes = b"",
    ) -> None:
        announce_compiling()
        encoding = decisions is not None
        self._shape, self._known = shape, known
        self._room = new_masses(1 if encoding or not with_model else shape.rows, shape.vocab_size)
        self._decoder = Decoder(payload)
        self.probability = np.zeros(GROUP_ROWS if decisions is None else decisions, dtype=np.float32)
        self.bits = np.zeros(GROUP_ROWS if decisions is None else decisions, dtype=np.int32)
        self._step = 0
        self._arguments = (  # the compiled walk does not keep them alive
            learned,
            texts,
            new_scratch(shape.rows),
            new_decision(GROUP_ROWS),
            shape,
            known,
            self._room,
            encoding,
            with_model,
            self.probability,
            self.bits,
        )
        with whole:  # the first call compiles, under locks of numba and LLVM
            self._walk: Iterator[int] = walk(*self._arguments)
            next(self._walk)

    def paths(self, masses: np.ndarray, places: np.ndarray) -> None:
        # Room of its own: several threads may be here.
        room = new_masses(1, self._shape.vocab_size)
        with whole:
            path_logits(masses, places, self._shape, room, self._known)

    def encode(self, last_step: int) -> None:
        shape = self._shape
        while self._step < last_step:
            active = shape.rows if self._step < shape.full_steps else shape.long_rows
            for _ in range(0, active, GROUP_ROWS):
                next(self._walk, None)
            self._step += 1

    def take(self, masses: np.ndarray, first_row: int) -> None:
        with whole:
            take_masses(masses, self._shape, self._room, first_row)

    def decode(self, first_row: int, last_row: int) -> None:
        for _ in range(first_row, last_row, GROUP_ROWS):
            for asked in self._walk:
                if asked == 0:
                    break
                self.bits[:asked] = self._decoder.decode_bits(self.probability[:asked])
