"""Texts to packets, each of which decodes alone, and back, as far as they arrived; must not know files or options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import log2
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import CorruptError, LLMZipError, SettingsError
from ..format.packets import MAX_TEXT_BYTES, Packet, check16, data_bytes, model_id, pack, parse, width
from . import texts as window_texts
from .codes import WindowWriter

if TYPE_CHECKING:
    from ..inference.load import LoadedModel

_PRECISION = 24  # bits of the frequencies in windows of 3 bytes and more
_PART_TOKENS = 1 << 13
"""Tokens of a part of a text. Parts are encoded side by side, and the last packet of each is shorter."""

_MOST_DATA = 1 << 22
"""Bytes of packets that are decoded together."""

Progress = Callable[[int], None]


# -- writing ---------------------------------------------------------------------------------------------------------


class _Writer(WindowWriter):
    """Remembers the tokens of a window that is not over, to write them into a shorter one."""

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
        model: of the exact engine.
        text: at most 2^26 bytes.
        packet_bytes: none is longer, 32 to 8,192.
        progress: called with numbers of bytes of the text that were done.

    Raises:
        SettingsError: a length is out of range, or windows cannot be had with this model.
    """
    capacity, table = data_bytes(packet_bytes, len(text)), model.table
    if table.escape is not None:
        raise SettingsError("packets need a tokenizer with a token for each byte")
    window_texts.check_engine(model.engine, 8 * capacity)
    made: list[tuple[int, int, bytes]] = []  # begin, tokens, data
    begin = 0
    for counts, windows, ids in _windows(model, text, capacity, progress):
        ends = np.cumsum(counts)
        sizes = [table.num_bytes(part) for part in np.split(ids, ends[:-1])]
        at = 0
        while at < len(sizes):
            # What windows do not make smaller goes as it is, without their borders.
            end = at
            while end < len(sizes) and sizes[end] <= len(windows[end]):
                end += 1
            after = begin + sum(sizes[at : max(end, at + 1)])
            if end > at:
                made += (
                    (start, 0, text[start : min(start + capacity, after)]) for start in range(begin, after, capacity)
                )
            else:
                made.append((begin, int(counts[at]), windows[at]))
            begin, at = after, max(end, at + 1)
    name, whole = model_id(model.record.model_digest, model.record.tokenizer_digest), check16(text)
    ends_at = [part[0] for part in made[1:]] + [len(text)]
    return [
        pack(Packet(
            name, whole, number, start, tokens, check16(text[start:end]), data, number == len(made) - 1,
            width(len(text)),
        ))
        for number, ((start, tokens, data), end) in enumerate(zip(made, ends_at, strict=True))
    ] if made else [pack(Packet(name, whole, 0, 0, 0, check16(b""), b"", True, 1))]  # fmt: skip


def _windows(
    model: LoadedModel, text: bytes, capacity: int, progress: Progress | None
) -> Iterator[tuple[np.ndarray, list[bytes], np.ndarray]]:
    """For each part of a text, in order: tokens of the windows, the windows, and the tokens."""
    ids = model.tokenizer.encode(text)
    parts = [ids[at : at + _PART_TOKENS] for at in range(0, len(ids), _PART_TOKENS)]
    writers: list[_Writer] = []

    def make_writer(window_bits: int) -> _Writer:
        writers.append(_Writer(window_bits))
        return writers[-1]

    num_bytes = model.table.num_bytes
    report = None if progress is None else lambda done: progress(num_bytes(done))
    coded = window_texts.encode(model.engine, parts, 8 * capacity, True, report, make_writer)
    for part, found, writer in zip(parts, coded, writers, strict=True):
        windows = [found.data[at : at + capacity] for at in range(0, len(found.data), capacity)]
        if writer.rest:
            windows[-1] = _shortest(writer.rest)
        yield found.counts, windows, part


def _shortest(bounds: list[tuple[int, int]]) -> bytes:
    """A window of as few bytes as tokens need. The cumulative frequencies are those of every W from 24 on."""
    bits = sum(_PRECISION - log2(right - left) for left, right in bounds)
    size = max(3, int(bits / 8) - 1)
    while True:  # at most so often that it is as long as the window they came from
        writer = WindowWriter(8 * size)
        if all(writer.add(left, right) for left, right in bounds):
            return writer.close(full=False)[0].to_bytes(size, "big")
        size += 1


# -- reading ---------------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """What is to be said of a packet.

    Attributes:
        name: where it came from.
        error: what is wrong.
    """

    name: str
    error: LLMZipError


def gather(packets: Iterable[tuple[str, bytes]]) -> tuple[dict[tuple[bytes, int, int], list[Packet]], list[Problem]]:
    """Sorts packets by their texts, each once.

    Args:
        packets: names and bytes, in any order.

    Returns:
        for each text, by `Packet.kin`, its packets by their numbers; and what was no packet.
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
    return {kin: [found[key] for key in sorted(found)] for kin, found in texts.items()}, problems


class Part(NamedTuple):
    """A part of a text, or a gap.

    Attributes:
        begin, end: where it lies; of a gap at the end of the text, whose length is not known, end is None.
        text: None for a gap.
        packets: numbers of the packets, first and one behind the last, None where that is not known.
    """

    begin: int
    end: int | None
    text: bytes | None
    packets: tuple[int, int | None]


def decode(model: LoadedModel, packets: list[Packet], progress: Progress | None = None) -> tuple[list[Part], list[str]]:
    """The text of packets as far as they are there.

    Args:
        model: with the `model_id` of the packets.
        packets: of one text, by number.
        progress: called with numbers of bytes of the text that were done.

    Returns:
        the parts of the text in order, gaps between them; and what was wrong with packets that count as lost.

    Raises:
        SettingsError, ResourceError.
        CorruptError: all packets are there, but their text is another one.
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
    """The text of each packet, unchecked; None for one that stands for more than a text may have."""
    found: list[bytes | None] = [None if packet.tokens else packet.data for packet in packets]
    sizes: dict[int, list[int]] = {}
    for place, packet in enumerate(packets):
        if packet.tokens:
            sizes.setdefault(len(packet.data), []).append(place)
    table = model.table
    if sizes and table.escape is not None:
        raise CorruptError("damaged: packets of a tokenizer that has no token for some byte")
    for size, places in sizes.items():
        step = max(1, _MOST_DATA // size)
        for group in (places[at : at + step] for at in range(0, len(places), step)):
            data = b"".join(packets[place].data for place in group)
            limits = np.array([packets[place].tokens for place in group], dtype=np.int64)
            numbers = np.arange(len(group))
            try:
                windows = window_texts.decode(
                    model.engine, data, 8 * size, numbers, limits, table.num_bytes, MAX_TEXT_BYTES, progress
                )
            except CorruptError:  # more text than a text may have: together, it cannot be said of which one
                if len(group) > 1:
                    for place in group:
                        found[place] = _texts(model, [packets[place]], progress)[0]
                continue
            for place, ids in zip(group, windows.tokens, strict=True):
                found[place] = table.decode(ids) if len(ids) == packets[place].tokens else None
    return found
