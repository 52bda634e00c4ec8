"""Packets of texts: a text into windows that travel alone, and back from those that arrive; must not know files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import log2
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import CorruptError, LLMZipError
from ..format.packets import MAX_TEXT_BYTES, Packet, check16, data_bytes, model_id, pack, parse, width
from ..inference.progress import ByteMeter, Progress, in_bytes
from . import texts as window_texts
from .codes import WindowWriter

if TYPE_CHECKING:
    from ..inference.load import LoadedModel

_PRECISION_BITS = 24
"""The frequencies in windows of 3 bytes and more have the sum 2^24."""

_PART_TOKENS = 1 << 13
"""Tokens of a part of a text. Parts are encoded side by side, and the last packet of each is shorter."""

_MAX_DATA_BYTES = 1 << 22
"""Bytes of packets that are decoded together, 4 MiB."""


# -- writing ---------------------------------------------------------------------------------------------------------


class _Writer(WindowWriter):
    """A WindowWriter that remembers the tokens of a window that is not full, to write them into a shorter one.

    Attributes:
        rest: cumulative frequencies of the tokens in the last window, if it was not full.
    """

    def __init__(self, window_bits: int) -> None:
        super().__init__(window_bits)
        self._bounds: list[tuple[int, int]] = []
        self.rest: list[tuple[int, int]] = []

    def add(self, left: int, right: int) -> bool:
        taken = super().add(left, right)
        if taken:
            self._bounds.append((left, right))
        return taken

    def close(self, full: bool) -> tuple[int, int]:
        self.rest, self._bounds = [] if full else self._bounds, []
        return super().close(full)


def encode(model: LoadedModel, text: bytes, packet_bytes: int, progress: Progress | None = None) -> list[bytes]:
    """Cuts a text into packets.

    Args:
        model: the model, with the exact engine.
        text: at most 2^26 bytes.
        packet_bytes: size of the longest packet, 32 to 8,192.
        progress: called with numbers of bytes of the text that were just encoded.

    Raises:
        SettingsError: a length is out of range, or this model cannot make windows.
    """
    capacity, table = data_bytes(packet_bytes, len(text)), model.table
    window_texts.check_engine(model.engine, 8 * capacity)
    pieces = list(_pieces(model, text, capacity, table.num_bytes, progress)) or [_Piece(0, 0, b"")]
    ends = [piece.begin for piece in pieces[1:]] + [len(text)]
    name, whole = model_id(model.record.model_digest, model.record.tokenizer_digest), check16(text)
    return [
        pack(
            Packet(
                model=name,
                text=whole,
                number=number,
                begin=piece.begin,
                tokens=piece.tokens,
                text_check=check16(text[piece.begin : end]),
                data=piece.data,
                last=number == len(pieces) - 1,
                width=width(len(text)),
            )
        )
        for number, (piece, end) in enumerate(zip(pieces, ends, strict=True))
    ]


class _Piece(NamedTuple):
    """The part of a text that goes into one packet.

    Attributes:
        begin: where it begins in the text, in bytes.
        tokens: tokens in the window; 0 if the data is the text itself.
        data: the window or the text.
    """

    begin: int
    tokens: int
    data: bytes


def _pieces(
    model: LoadedModel,
    text: bytes,
    capacity: int,
    num_bytes: Callable[[np.ndarray], int],
    progress: Progress | None,
) -> Iterator[_Piece]:
    """Yields the data of all packets: windows, and text as it is where windows do not make it smaller."""
    begin = 0
    for counts, windows, ids in _windows(model, text, capacity, progress):
        sizes = [num_bytes(part) for part in np.split(ids, np.cumsum(counts)[:-1])]
        at = 0
        while at < len(sizes):
            end = at
            while end < len(sizes) and sizes[end] <= len(windows[end]):
                end += 1
            after = begin + sum(sizes[at : max(end, at + 1)])
            if end > at:  # windows at to end - 1 do not pay: their text is cut into full packets
                for start in range(begin, after, capacity):
                    yield _Piece(start, 0, text[start : min(start + capacity, after)])
            else:
                yield _Piece(begin, int(counts[at]), windows[at])
            begin, at = after, max(end, at + 1)


def _windows(
    model: LoadedModel, text: bytes, capacity: int, progress: Progress | None
) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
    """Yields for each part of a text, in order: how many tokens each window holds, the windows, and all tokens."""
    ids = model.tokenizer.encode(text)
    parts = [ids[at : at + _PART_TOKENS] for at in range(0, len(ids), _PART_TOKENS)]
    writers: list[_Writer] = []

    def make_writer(window_bits: int) -> _Writer:
        writers.append(_Writer(window_bits))
        return writers[-1]

    report = in_bytes(progress, model.table.num_bytes)
    coded = window_texts.encode(model.engine, parts, 8 * capacity, fresh=True, progress=report, make_writer=make_writer)
    for part, part_windows, writer in zip(parts, coded, writers, strict=True):
        data = part_windows.data
        windows = [data[at : at + capacity] for at in range(0, len(data), capacity)]
        if writer.rest:
            windows[-1] = _shortest(writer.rest)
        yield part_windows.counts, windows, part


def _shortest(bounds: list[tuple[int, int]]) -> bytes:
    """Packs tokens into a window of as few bytes as they need; the frequencies are those of every W from 24 on."""
    bits = sum(_PRECISION_BITS - log2(right - left) for left, right in bounds)
    size = max(3, int(bits / 8) - 1)
    while True:  # ends at the latest with the size of the window that they came from
        writer = WindowWriter(8 * size)
        if all(writer.add(left, right) for left, right in bounds):
            return writer.close(full=False)[0].to_bytes(size, "big")
        size += 1


# -- reading ---------------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """What is wrong with a packet.

    Attributes:
        name: where the packet came from.
        error: why it cannot be used.
    """

    name: str
    error: LLMZipError


def gather(packets: Iterable[tuple[str, bytes]]) -> tuple[dict[tuple[bytes, int, int], list[Packet]], list[Problem]]:
    """Sorts packets by their texts and drops those that arrived twice.

    Args:
        packets: names and bytes, in any order.

    Returns:
        for each text, by `Packet.kin`, its packets in the order of their numbers; and what was not a packet.
    """
    texts: dict[tuple[bytes, int, int], dict[tuple[int, bytes], Packet]] = {}
    problems = []
    for name, data in packets:
        try:
            packet = parse(data)
        except LLMZipError as error:
            problems.append(Problem(name, error))
        else:
            texts.setdefault(packet.kin, {})[packet.number, data] = packet
    return {kin: [by_number[key] for key in sorted(by_number)] for kin, by_number in texts.items()}, problems


class Part(NamedTuple):
    """A part of a text, or a gap.

    Attributes:
        begin, end: where the part is in the text, in bytes; end is None for a gap at the end of the text.
        text: the part's bytes; None for a gap.
        packets: numbers of the first packet and of the one after the last; None for the latter if it is not known.
    """

    begin: int
    end: int | None
    text: bytes | None
    packets: tuple[int, int | None]


def decode(model: LoadedModel, packets: list[Packet], progress: Progress | None = None) -> tuple[list[Part], list[str]]:
    """Decodes the text of packets, as far as they have arrived.

    Args:
        model: the model with the `model_id` of the packets.
        packets: packets of one text, in the order of their numbers.
        progress: called with numbers of bytes of the text that were just decoded.

    Returns:
        the parts of the text in order, with the gaps between them; and what was wrong with packets that count as lost.

    Raises:
        SettingsError: the model has another engine, or windows too small for its vocabulary.
        ResourceError: there is not enough memory.
        CorruptError: no packet is missing, but the text does not have the checksum that all of them give.
    """
    texts = _texts(model, packets, progress)
    parts: list[Part] = []
    wrong: list[str] = []
    end, next_number, is_whole = 0, 0, False
    for packet, text in zip(packets, texts, strict=True):
        if text is None or check16(text) != packet.text_check:
            wrong.append(f"packet {packet.number:,}: damaged: its text does not fit its check")
            continue
        if packet.number < next_number or packet.begin < end or (packet.number == next_number) != (packet.begin == end):
            wrong.append(f"packet {packet.number:,}: does not fit the packets before it")
            continue
        if packet.begin > end:
            parts.append(Part(end, packet.begin, None, (next_number, packet.number)))
        end, next_number, is_whole = packet.begin + len(text), packet.number + 1, packet.last
        parts.append(Part(packet.begin, end, text, (packet.number, next_number)))
    if not is_whole:
        parts.append(Part(end, None, None, (next_number, None)))
    if all(part.text is not None for part in parts):
        whole = check16(b"".join(part.text or b"" for part in parts))
        if whole != packets[0].text:
            raise CorruptError(f"damaged: the text's check is {packets[0].text:04x}, computed {whole:04x}")
    return parts, wrong


def _texts(model: LoadedModel, packets: list[Packet], progress: Progress | None) -> list[bytes | None]:
    """Decodes the text of each packet, unchecked; None for one that does not decode."""
    texts: list[bytes | None] = [None if packet.tokens else packet.data for packet in packets]
    sizes: dict[int, list[int]] = {}
    for place, packet in enumerate(packets):
        if packet.tokens:
            sizes.setdefault(len(packet.data), []).append(place)
    table = model.table
    for size, places in sizes.items():
        step = max(1, _MAX_DATA_BYTES // size)
        for group in (places[at : at + step] for at in range(0, len(places), step)):
            data = b"".join(packets[place].data for place in group)
            limits = np.array([packets[place].tokens for place in group], dtype=np.int64)
            numbers = np.arange(len(group))
            meter = ByteMeter(table.num_bytes, MAX_TEXT_BYTES, progress)
            try:
                windows = window_texts.WindowDecoder(model.engine, 8 * size, meter).fresh(data, numbers, limits)
            except CorruptError:  # together they exceed what a text may have: which one does, shows each alone
                if len(group) > 1:
                    for place in group:
                        texts[place] = _texts(model, [packets[place]], progress)[0]
                continue
            for place, ids in zip(group, windows.tokens, strict=True):
                texts[place] = table.decode(ids) if len(ids) == packets[place].tokens else None
    return texts
