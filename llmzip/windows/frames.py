"""Frames of method windows: text to windows with their directory, and back, whole or in part; must not know files.

The directory tells for each group of windows how much text it holds, and a checksum: so a place in the text is found
without decoding what is before it, and damage costs no more than a group (format section 4d).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CorruptError, SettingsError
from ..format.headers import FRESH, KEPT, WINDOWS, FrameHeader, WindowsRecord, pack_varint, unpack_varint
from . import texts as window_texts

if TYPE_CHECKING:
    from ..inference.load import LoadedModel
    from ..models.token_table import TokenTable

_GROUP_BITS = 1 << 14
_WINDOWS_PER_FRAME, _LEAST_BYTES, _MOST_BYTES = 128, 1 << 15, 1 << 21
_TEXT_BITS = 2
"""About what a byte of text takes."""

Progress = Callable[[int], None]


def piece_bytes(window_bits: int) -> int:
    """Text of one frame: so many windows that a last one, which is not full, hardly counts.

    Frames are encoded side by side, windows one after the other: small frames are fast.
    """
    return min(max(_WINDOWS_PER_FRAME * window_bits // _TEXT_BITS, _LEAST_BYTES), _MOST_BYTES)


def group_windows(window_bits: int) -> int:
    """Windows of a group: with some 5 bytes for 2 KiB of windows the directory is a four-hundredth of them."""
    return max(1, _GROUP_BITS // window_bits)


def encode(
    model: LoadedModel, texts: list[bytes], window_bits: int, fresh: bool, progress: Progress | None
) -> list[tuple[FrameHeader, bytes] | None]:
    """Header and payload for each of some texts, which are encoded side by side.

    Args:
        texts: of 1 to 2^21 bytes.
        fresh: each window begins with an empty context.

    Returns:
        None for a text that has more tokens than bytes.

    Raises:
        SettingsError: W is too small for the vocabulary, or the tokenizer has no token for some byte.
    """
    table = model.table
    if table.escape is not None:
        raise SettingsError("windows need a tokenizer with a token for each byte")
    tokens = [model.tokenizer.encode(text) for text in texts]
    usable = [number for number, ids in enumerate(tokens) if len(ids) <= len(texts[number])]
    report = None
    if progress is not None:
        report = lambda ids: progress(table.num_bytes(ids))  # noqa: E731
    found: list[tuple[FrameHeader, bytes] | None] = [None] * len(texts)
    coded = window_texts.encode(model.engine, [tokens[number] for number in usable], window_bits, fresh, report)
    for number, windows in zip(usable, coded, strict=True):
        text, ids, count = texts[number], tokens[number], len(windows.counts)
        group = min(group_windows(window_bits), count)
        record = WindowsRecord(window_bits, count, int(windows.counts[-1]), group)
        directory, begin = b"", 0
        for part in _groups(table, ids, windows.counts, group):
            directory += pack_varint(part) + _check(text[begin : begin + part])
            begin += part
        payload = windows.data + directory
        profile = FRESH if fresh else KEPT
        header = FrameHeader(WINDOWS, False, len(text), len(payload), len(ids), profile, windows=record)
        found[number] = (header, payload)
    return found


def _groups(table: TokenTable, ids: np.ndarray, counts: np.ndarray, group: int) -> Iterator[int]:
    """Bytes of each group of windows."""
    ends = np.cumsum(counts)[group - 1 :: group].tolist()
    if not ends or ends[-1] != len(ids):
        ends.append(len(ids))
    begin = 0
    for end in ends:
        yield len(table.decode(ids[begin:end]))
        begin = end


def _check(text: bytes) -> bytes:
    return (zlib.crc32(text) & 0xFFFF).to_bytes(2, "little")


@dataclass(frozen=True)
class Group:
    """Some windows of a frame.

    Attributes:
        windows: their numbers.
        begin, end: where their text lies in the frame's.
        check: of the text.
    """

    windows: range
    begin: int
    end: int
    check: bytes

    def holds(self, text: bytes) -> bool:
        """Whether this is its text."""
        return len(text) == self.end - self.begin and _check(text) == self.check


def directory(header: FrameHeader, data: bytes) -> list[Group]:
    """What a payload ends with.

    Args:
        header: of a frame of method windows.
        data: the payload behind the windows.

    Raises:
        CorruptError: it does not fit the header.
    """
    record = header.windows
    assert record is not None
    groups: list[Group] = []
    end = 0
    for first in range(0, record.count, record.group):
        size, data = unpack_varint(data, ": a number of the directory")
        begin, end = end, end + size
        windows = range(first, min(first + record.group, record.count))
        if len(data) < 2 or size < len(windows):
            raise CorruptError("damaged: the directory of the windows is too short, or a window is empty")
        groups.append(Group(windows, begin, end, data[:2]))
        data = data[2:]
    if data or end != header.original_bytes:
        raise CorruptError("damaged: the directory of the windows does not add up")
    return groups


def decode(model: LoadedModel, header: FrameHeader, payload: bytes, progress: Progress | None) -> bytes:
    """The text of a frame.

    Raises:
        CorruptError: naming what is lost.
    """
    record = header.windows
    assert record is not None
    groups = directory(header, payload[record.data_bytes :])
    unused = 8 * record.data_bytes - record.count * record.window_bits
    if payload[record.data_bytes - 1] & (1 << unused) - 1:
        raise CorruptError("damaged: bits behind the last window")
    found = _found(model, header, payload, range(record.count), progress)
    texts = [model.table.decode(ids) for ids in found.tokens]
    lost = []
    for group in groups:
        if not group.holds(b"".join(texts[number] for number in group.windows)):
            lost.append(f"{group.begin:,} to {group.end:,}")
    if lost:
        raise CorruptError(f"damaged: windows with bytes {', '.join(lost[:3])}{' and more' * (len(lost) > 3)}")
    counts = [len(ids) for ids in found.tokens]
    if sum(counts) != header.num_tokens or counts[-1] != record.last_tokens:
        raise CorruptError(f"damaged: windows with {sum(counts):,} tokens, {header.num_tokens:,} were promised")
    return b"".join(texts)


def decode_windows(
    model: LoadedModel,
    header: FrameHeader,
    data: bytes,
    wanted: range,
    progress: Progress | None = None,
    first: int = 0,
) -> tuple[list[bytes], np.ndarray]:
    """The texts of some windows of a frame, unchecked. With a kept context all windows of the frame are decoded.

    Args:
        data: the payload, or a part of it that holds them, with a kept context all windows.
        first: the window that lies at bit 0 of the data.

    Returns:
        the texts, and (n,) float64: bits that each window did not need.

    Raises:
        CorruptError: they hold more text than the frame, or with a kept context do not hold its tokens.
    """
    found = _found(model, header, data, wanted, progress, first)
    return [model.table.decode(ids) for ids in found.tokens], found.spare_bits


def _found(
    model: LoadedModel,
    header: FrameHeader,
    data: bytes,
    wanted: range,
    progress: Progress | None,
    first: int = 0,
) -> window_texts.Found:
    record, num_bytes = header.windows, model.table.num_bytes
    assert record is not None
    most, bits = header.original_bytes, record.window_bits
    if model.table.escape is not None:
        raise CorruptError("damaged: windows of a tokenizer that has no token for some byte")
    if header.profile == KEPT:
        count, tokens = record.count, header.num_tokens
        found = window_texts.decode_kept(model.engine, data, bits, count, tokens, num_bytes, most, progress)
        return window_texts.Found(
            found.tokens[wanted.start : wanted.stop], found.spare_bits[wanted.start : wanted.stop]
        )
    numbers = np.arange(wanted.start, wanted.stop)
    limits = np.where(numbers == record.count - 1, record.last_tokens, header.num_tokens)
    return window_texts.decode(model.engine, data, bits, numbers - first, limits, num_bytes, most, progress)
