"""What still reads of a frame that is cut off or failed its checksum. Nothing here is verified.

The rows of a frame advance in lockstep, so a damaged byte spoils every row from the same step on: what is left of such
a frame are the beginnings of its rows.
"""

from __future__ import annotations

import bisect
import contextlib
import lzma
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CorruptError
from ..format.headers import LZMA, MIXED, SKIP, STORED, WINDOWS, Frame
from ..format.plan import RowPlan, header_plan
from ..inference.progress import ByteMeter
from . import methods

if TYPE_CHECKING:
    from ..models.token_table import TokenTable
    from .reader import FrameDecoder

_STEP_BYTES = 64
"""Payload that LZMA2 is given at a time: what comes out before it finds an error is kept."""

_CONTROL = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f]")
"""Characters that texts do not have; white space, backspace and escape are not among them."""


def readable_pieces(decoder: FrameDecoder, frame: Frame) -> list[bytes]:
    """Returns what can be read of a damaged frame, in the order of its text; nothing was verified.

    Of a frame that is cut off, only what its remaining bytes determine. Of one that was damaged on the way, all that
    decodes and, where the model or the mixer made the text, only up to the first step at which a row stops being valid
    UTF-8: what they make of damaged data has the look of text.

    Args:
        decoder: has the model.
        frame: its payload may be shorter than its header says.

    Returns:
        pieces with at least a byte each; of rows, the beginning of each one.

    Raises:
        ModelError, EngineError, TokenizerError: the model is needed and not available.
    """
    header = frame.header
    if header.method in (SKIP, WINDOWS):
        return []
    if header.method == STORED:
        pieces = [frame.payload[: header.original_bytes]]
    elif header.method == MIXED and not header.uses_model:
        pieces = [_adaptive(frame)]
    elif header.uses_model:
        pieces = _rows(decoder, frame)
    else:
        pieces = [_plain(frame)]
    return [piece for piece in pieces if piece]


def _plain(frame: Frame) -> bytes:
    """Returns what LZMA2 or Zstandard give before they find an error."""
    payload, limit = frame.payload, frame.header.original_bytes
    if frame.header.method != LZMA:
        return methods.zstd_beginning(payload, limit)
    out = bytearray()
    decompressor = methods.lzma_decompressor(limit)
    with contextlib.suppress(lzma.LZMAError, EOFError):
        for begin in range(0, len(payload), _STEP_BYTES):
            out += decompressor.decompress(payload[begin : begin + _STEP_BYTES], limit - len(out))
            if len(out) >= limit or decompressor.eof:
                break
    return bytes(out)


def _adaptive(frame: Frame) -> bytes:
    """Returns the beginning of a frame that the mixer coded without a model."""
    from ..mixing.mixer import MixDecoder, byte_vocabulary

    vocabulary, num_bytes = byte_vocabulary(), frame.header.original_bytes

    def decode(payload: bytes) -> np.ndarray:
        decoder = MixDecoder(vocabulary, payload, num_bytes, 1, with_model=False)
        found: list[np.ndarray] = []
        with contextlib.suppress(CorruptError):
            while len(found) < num_bytes:
                found.append(decoder.step(None))
        return _joined(found)

    text = _determined(frame, decode).astype(np.uint8).tobytes()
    return text if _is_cut(frame) else text[: _sensible_bytes(text)]


def _rows(decoder: FrameDecoder, frame: Frame) -> list[bytes]:
    """Returns the beginnings of the rows of a frame that a model coded."""
    model, coder = decoder.coder(frame)
    plan = header_plan(frame.header, model.engine.context)

    def decode(payload: bytes) -> np.ndarray:
        collected = _Collector(model.table.num_bytes, frame.header.original_bytes)
        with contextlib.suppress(CorruptError):
            coder.decode(payload, plan, collected)
        return collected.tokens()

    tokens = _determined(frame, decode)
    if _is_cut(frame) and len(tokens) < plan.num_tokens:
        # In a step all rows' groups come before any place in a group: none of its tokens is sure alone.
        tokens = tokens[: min(len(tokens) // plan.num_rows, plan.full_steps) * plan.num_rows]
    rows = _in_rows(tokens, plan)
    texts = [model.table.decode(row) for row in rows]
    if _is_cut(frame):
        return texts
    # What one row shows holds for all: they share the payload, step by step.
    steps = min(
        (_steps_of(model.table, row, _sensible_bytes(text)) for row, text in zip(rows, texts, strict=True)), default=0
    )
    return [model.table.decode(row[:steps]) for row in rows]


class _Collector(ByteMeter):
    """Keeps the tokens that a frame gives, in the order in which they are coded, up to the size of its text."""

    def __init__(self, num_bytes: Callable[[np.ndarray], int], max_bytes: int) -> None:
        super().__init__(num_bytes, max_bytes)
        self._count, self._left = num_bytes, max_bytes
        self._found: list[np.ndarray] = []

    def add(self, tokens: np.ndarray) -> None:
        fitting = bisect.bisect_right(range(len(tokens)), self._left, key=lambda n: self._count(tokens[: n + 1]))
        self._found.append(tokens[:fitting].copy())
        self._left -= self._count(tokens)
        super().add(tokens)

    def tokens(self) -> np.ndarray:
        """Returns all tokens so far, (n,) int64."""
        return _joined(self._found)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _is_cut(frame: Frame) -> bool:
    return len(frame.payload) < frame.header.payload_bytes


def _determined(frame: Frame, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """Decodes a payload; of one that is cut off, returns the tokens that any continuation would give.

    A range decoder's choices rise with the number that its input stands for. So tokens that come out both of the
    lowest continuation, zeros, and of the highest one come out of all.
    """
    tokens = decode(frame.payload)
    if not _is_cut(frame):
        return tokens
    missing = frame.header.payload_bytes - len(frame.payload)
    others = decode(frame.payload + b"\xff" * missing)
    common = min(len(tokens), len(others))
    differing = np.flatnonzero(tokens[:common] != others[:common])
    return tokens[: int(differing[0]) if len(differing) else common]


def _in_rows(tokens: np.ndarray, plan: RowPlan) -> list[np.ndarray]:
    """Deals out tokens in the order in which they are coded to the rows of a frame."""
    active = plan.num_rows
    bulk = min(len(tokens) // active, plan.full_steps)
    table = tokens[: bulk * active].reshape(bulk, active)
    rest = tokens[bulk * active :]
    return [
        np.concatenate([table[:, row], rest[row : row + 1]]) if row < len(rest) else table[:, row]
        for row in range(active)
    ]


def _sensible_bytes(text: bytes) -> int:
    """Returns how many bytes from the front are UTF-8 without control characters.

    The text may begin and end inside a character: so do rows.
    """
    begin = 0
    while begin < min(3, len(text)) and text[begin] & 0xC0 == 0x80:
        begin += 1
    found = _CONTROL.search(text)
    end = len(text) if found is None else found.start()
    try:
        text[begin:end].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data" or end < len(text):
            return begin + error.start
    return end


def _steps_of(table: TokenTable, row: np.ndarray, num_bytes: int) -> int:
    """Returns how many tokens from a row's front stand for at most so many bytes; one more than it has, if all do."""
    ends = np.cumsum([table.num_bytes(row[n : n + 1]) for n in range(len(row))], dtype=np.int64)
    count = int(np.searchsorted(ends, num_bytes, side="right"))
    return count if count < len(row) else len(row) + 1
