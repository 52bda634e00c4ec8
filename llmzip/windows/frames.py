"""Frames of method windows: a frame's text into windows and their directory and back; must not know files.

The directory has the size of each group's text and its checksum: a place in the text is found without decoding what is
before it, and damage costs no more than a group (format section 4d).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import CorruptError
from ..format.headers import FrameHeader, WindowsRecord
from ..format.numbers import pack_varint, unpack_varint
from ..inference.progress import ByteMeter, Progress, in_bytes
from . import texts as window_texts

if TYPE_CHECKING:
    from ..inference.load import LoadedModel
    from ..models.token_table import TokenTable

_GROUP_BITS = 1 << 14
"""Bits of the windows of a group, about: 2 KiB."""

_WINDOWS_PER_FRAME = 128
_MIN_TEXT_BYTES = 1 << 15
_MAX_TEXT_BYTES = 1 << 21
_BITS_PER_BYTE = 2
"""Bits of windows that a byte of text takes, about."""


def piece_bytes(window_bits: int) -> int:
    """Returns how much text a frame gets, in bytes: enough that its last window, which is not full, hardly counts.

    Frames are encoded side by side, windows one after the other: small frames are fast.
    """
    return min(max(_WINDOWS_PER_FRAME * window_bits // _BITS_PER_BYTE, _MIN_TEXT_BYTES), _MAX_TEXT_BYTES)


def group_windows(window_bits: int) -> int:
    """Returns how many windows a group has: with about 5 bytes for 2 KiB of windows the directory adds 0.25 %."""
    return max(1, _GROUP_BITS // window_bits)


def encode(
    model: LoadedModel, texts: list[bytes], window_bits: int, *, fresh: bool, progress: Progress | None
) -> list[tuple[FrameHeader, bytes]]:
    """Makes the header and the payload of a frame for each of some texts, which are encoded side by side.

    Args:
        model: the model, with its engine.
        texts: texts of 1 to 2^21 bytes.
        window_bits: W, 16 to 65,536.
        fresh: whether each window begins with an empty context.
        progress: called with numbers of bytes of the texts that were just encoded.

    Returns:
        for each text its header and payload.

    Raises:
        SettingsError: W is too small for the vocabulary, or the model has another engine.
    """
    table = model.table
    tokens = [model.tokenizer.encode(text) for text in texts]
    report = in_bytes(progress, table.num_bytes)
    frames: list[tuple[FrameHeader, bytes]] = []
    coded = window_texts.encode(model.engine, tokens, window_bits, fresh=fresh, progress=report)
    for text, ids, windows in zip(texts, tokens, coded, strict=True):
        count = len(windows.counts)
        group = min(group_windows(window_bits), count)
        record = WindowsRecord(window_bits, count, int(windows.counts[-1]), group)
        directory, begin = b"", 0
        for part in _groups(table, ids, windows.counts, group):
            directory += pack_varint(part) + _check(text[begin : begin + part])
            begin += part
        payload = windows.data + directory
        header = FrameHeader.of_windows(len(text), len(payload), record, num_tokens=len(ids), fresh=fresh)
        frames.append((header, payload))
    return frames


def _groups(table: TokenTable, ids: np.ndarray, counts: np.ndarray, group: int) -> Iterator[int]:
    """Yields the bytes of text of each group of windows."""
    ends = np.cumsum(counts)[group - 1 :: group].tolist()
    if not ends or ends[-1] != len(ids):
        ends.append(len(ids))
    begin = 0
    for end in ends:
        yield len(table.decode(ids[begin:end]))
        begin = end


def _check(text: bytes) -> bytes:
    """Returns the checksum of a group's text: the low half of its CRC-32, little-endian."""
    return (zlib.crc32(text) & 0xFFFF).to_bytes(2, "little")


@dataclass(frozen=True)
class Group:
    """Windows of a frame that share an entry of its directory.

    Attributes:
        windows: their numbers in the frame.
        begin, end: where their text is in the frame's, in bytes.
        check: checksum of their text, 2 bytes.
    """

    windows: range
    begin: int
    end: int
    check: bytes

    def holds(self, text: bytes) -> bool:
        """Checks a text that was decoded from the group's windows."""
        return len(text) == self.end - self.begin and _check(text) == self.check


def directory(header: FrameHeader, data: bytes) -> list[Group]:
    """Reads the directory that a payload ends with.

    Args:
        header: of a frame of method windows.
        data: the payload after the windows.

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
    """Decodes the text of a frame.

    Args:
        model: the model that encoded it.
        header: of a frame of method windows.
        payload: the whole payload.
        progress: called with numbers of bytes of the text that were just decoded.

    Raises:
        CorruptError: it does not decode, or a checksum is wrong; the message names the bytes that are lost.
    """
    record = header.windows
    assert record is not None
    groups = directory(header, payload[record.data_bytes :])
    unused = 8 * record.data_bytes - record.count * record.window_bits
    if payload[record.data_bytes - 1] & (1 << unused) - 1:
        raise CorruptError("damaged: bits after the last window are not 0")
    windows = decode_windows(model, header, payload, range(record.count), progress=progress)
    lost = []
    for group in groups:
        if not group.holds(b"".join(windows.texts[number] for number in group.windows)):
            lost.append(f"{group.begin:,} to {group.end:,}")
    if lost:
        raise CorruptError(f"damaged: windows with bytes {', '.join(lost[:3])}{' and more' * (len(lost) > 3)}")
    num_tokens = int(windows.counts.sum())
    if num_tokens != header.num_tokens or windows.counts[-1] != record.last_tokens:
        raise CorruptError(f"damaged: windows with {num_tokens:,} tokens, the header says {header.num_tokens:,}")
    return b"".join(windows.texts)


class DecodedWindows(NamedTuple):
    """The texts of n windows.

    Attributes:
        texts: the text of each window.
        counts: (n,) int64, tokens of each window.
        spare_bits: (n,) float64, bits that each window did not need.
    """

    texts: list[bytes]
    counts: np.ndarray
    spare_bits: np.ndarray


def decode_windows(
    model: LoadedModel,
    header: FrameHeader,
    data: bytes,
    wanted: range,
    *,
    progress: Progress | None = None,
    first: int = 0,
) -> DecodedWindows:
    """Decodes some windows of a frame, without checking their texts. With a kept context all windows are decoded.

    Args:
        model: the model that encoded them.
        header: of a frame of method windows.
        data: the payload, or a part of it that holds the windows; with a kept context all windows.
        wanted: numbers of the windows in the frame.
        progress: called with numbers of bytes of the text that were just decoded.
        first: the window that begins at bit 0 of the data.

    Raises:
        CorruptError: they hold more text than the frame, or with a kept context do not hold its tokens.
    """
    record, table = header.windows, model.table
    assert record is not None
    meter = ByteMeter(table.num_bytes, header.original_bytes, progress)
    decoder = window_texts.WindowDecoder(model.engine, record.window_bits, meter)
    numbers = np.arange(wanted.start, wanted.stop)
    if header.keeps_context:
        decoded = decoder.kept(data, record.count, header.num_tokens)
        tokens, spare_bits = decoded.tokens[wanted.start : wanted.stop], decoded.spare_bits[numbers]
    else:
        limits = np.where(numbers == record.count - 1, record.last_tokens, header.num_tokens)
        decoded = decoder.fresh(data, numbers - first, limits)
        tokens, spare_bits = decoded.tokens, decoded.spare_bits
    counts = np.array([len(ids) for ids in tokens], dtype=np.int64)
    return DecodedWindows([table.decode(ids) for ids in tokens], counts, spare_bits)
