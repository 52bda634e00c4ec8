"""Parts of archives: a range of the text, or some windows, of which no more is read and decoded than they need.

Where the file is one archive with an index, a range of the text is found by it; otherwise, and for windows, the headers
of all frames are read first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import gcd
from typing import BinaryIO

import numpy as np

from ..errors import CorruptError, SettingsError
from ..format.headers import WINDOWS, Frame, WindowsRecord
from ..format.index import ArchiveIndex, read_frame, read_index
from ..format.reading import read_archives
from ..settings import DecompressSettings
from ..system.streams import read_upto
from .lines import check_line_feeds
from .reader import FrameDecoder

_MAX_KEPT_FRAMES = 2
"""Where the lines that are wanted begin and end."""


@dataclass(frozen=True)
class Place:
    """A frame in a file.

    Attributes:
        frame: without its payload.
        begin: where its text begins in the file's text, in bytes.
        first_window: number of windows in the frames before it.
    """

    frame: Frame
    begin: int
    first_window: int

    @property
    def end(self) -> int:
        """Where the frame's text ends in the file's text, in bytes."""
        return self.begin + self.frame.header.original_bytes

    @property
    def num_windows(self) -> int:
        """Number of windows in the frame; 0 if it is of another method."""
        record = self.frame.header.windows
        return 0 if record is None else record.count


def placed(frames: Iterable[Frame]) -> Iterator[Place]:
    """Yields the places of all frames of a file, which come in their order."""
    num_bytes = num_windows = 0
    for frame in frames:
        place = Place(frame, num_bytes, num_windows)
        num_bytes, num_windows = place.end, num_windows + place.num_windows
        yield place


class PartReader:
    """Reads parts of the text of a file of archives.

    Args:
        source: a seekable binary file, at its start.
        settings: model, engine.

    Raises:
        FormatError, CorruptError, TruncatedError: as docs/format.md section 8 says.
        SettingsError: the file is not seekable.
    """

    def __init__(self, source: BinaryIO, settings: DecompressSettings) -> None:
        if not source.seekable():
            raise SettingsError("parts can only be read from a file, not from a pipe")
        self._source = source
        self._decoder = FrameDecoder(settings)
        self._places: list[Place] | None = None
        self._kept: dict[int, bytes] = {}
        self._index = self._read_index()
        if self._index is None:
            self._places = self._all_places()

    def _read_index(self) -> ArchiveIndex | None:
        return read_index(self._source)

    @property
    def places(self) -> list[Place]:
        """All frames, whose headers are read if that was not done before.

        Raises:
            FormatError, CorruptError, TruncatedError: as docs/format.md section 8 says.
        """
        if self._places is None:
            self._source.seek(0)
            self._places = self._all_places()
        return self._places

    @property
    def num_bytes(self) -> int:
        """Size of the text in bytes."""
        if self._index is not None:
            return self._index.original_bytes
        return self.places[-1].end if self.places else 0

    @property
    def num_windows(self) -> int:
        """Number of windows in all frames; reads their headers."""
        places = self.places
        return places[-1].first_window + places[-1].num_windows if places else 0

    def text(self, begin: int, end: int) -> Iterator[bytes]:
        """Yields the bytes from `begin` up to `end` of the text, in pieces; each has passed its checksum.

        Raises:
            CorruptError, ModelError, EngineError, TokenizerError.
        """
        index = self._index
        numbers = range(self.num_frames) if index is None else index.frames_with(begin, end)
        places = self.places if index is None else self._indexed_places(index, numbers)
        for number, place in zip(numbers, places, strict=True):
            if begin < place.end and place.begin < end:
                first, last = max(begin, place.begin) - place.begin, min(end, place.end) - place.begin
                if number not in self._kept and place.frame.header.method == WINDOWS:
                    yield self._text_of_groups(place, first, last)
                else:
                    yield self._text_of(number)[first:last]

    # -- frames, numbered through the file

    @property
    def num_frames(self) -> int:
        """Number of frames of all archives."""
        return len(self.places if self._index is None else self._index)

    def text_range(self, number: int) -> tuple[int, int]:
        """Returns where the text of a frame begins and ends in the file's text, in bytes."""
        if self._index is None:
            return self.places[number].begin, self.places[number].end
        return self._index.begins[number], self._index.begins[number + 1]

    def line_feeds(self, number: int) -> int | None:
        """Returns the number of line feeds in the text of a frame; None if its archive has no index."""
        return self.places[number].frame.line_feeds if self._index is None else self._index.line_feeds[number]

    def frame_text(self, number: int) -> bytes:
        """Returns the text of a frame, checked. The last ones are kept: whoever finds a line reads it next.

        Raises:
            CorruptError, ModelError, EngineError, TokenizerError.
        """
        text = self._text_of(number)
        self._kept[number] = text
        while len(self._kept) > _MAX_KEPT_FRAMES:
            del self._kept[next(iter(self._kept))]
        return text

    def _text_of(self, number: int) -> bytes:
        """Returns the text of a frame without keeping it."""
        if number in self._kept:
            return self._kept[number]
        index = self._index
        frame = self._whole(self.places[number]) if index is None else read_frame(self._source, index, number)
        text = self._decoder.decode(frame)
        check_line_feeds(frame, text)
        return text

    # -- windows, and what is left of damaged archives

    def windows(self, begin: int, end: int) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """Yields the texts of windows `begin` up to `end`, as numbered through the file, and each one's unused bits.

        A window that is read alone has no checksum.

        Raises:
            CorruptError, ModelError, EngineError, TokenizerError.
        """
        for place in self.places:
            first = max(begin - place.first_window, 0)
            last = min(end - place.first_window, place.num_windows)
            if first < last:
                yield self._windows(place, range(first, last))

    def data(self, place: Place, begin: int = 0, end: int | None = None) -> bytes:
        """Returns bytes of a frame's payload, from `begin` up to `end`.

        Raises:
            CorruptError: the file has become shorter.
        """
        frame = place.frame
        size = frame.header.payload_bytes
        wanted = (size if end is None else end) - begin
        self._source.seek(frame.offset_bytes + frame.size_bytes - 5 - size + begin)
        data = read_upto(self._source, wanted)
        if len(data) != wanted:
            raise CorruptError(f"frame {frame.number}: the file has become shorter")
        return data

    def _all_places(self) -> list[Place]:
        """Reads the headers of all frames."""
        return list(placed(read_archives(self._source, skip_payloads=True)))

    def _indexed_places(self, index: ArchiveIndex, numbers: range) -> list[Place]:
        """Returns the frames with these numbers, and reads no other headers; damaged ones are found before any text."""
        frames = [read_frame(self._source, index, number, skip_payload=True) for number in numbers]
        # Ranges of the text do not ask for the numbers of windows.
        return [Place(frame, index.entry(frame.number).begin, 0) for frame in frames]

    def _whole(self, place: Place) -> Frame:
        """Returns a frame with its payload."""
        return replace(place.frame, payload=self.data(place))

    def _text_of_groups(self, place: Place, begin: int, end: int) -> bytes:
        """Returns part of the text of a frame of windows, from the groups that it is in."""
        from ..windows import frames

        record = windows_record(place)
        try:
            groups = frames.directory(place.frame.header, self.data(place, record.data_bytes))
            groups = [group for group in groups if begin < group.end and group.begin < end]
            texts, _ = self._windows(place, range(groups[0].windows.start, groups[-1].windows.stop))
            out, rest = b"", iter(texts)
            for group in groups:
                text = b"".join(next(rest) for _ in group.windows)
                if not group.holds(text):
                    place_text = f"{place.begin + group.begin:,} to {place.begin + group.end:,}"
                    raise CorruptError(f"damaged: windows with bytes {place_text}")
                out += text
        except CorruptError as error:
            raise CorruptError(f"frame {place.frame.number}: {error}") from None
        if len(out) == place.frame.header.original_bytes:
            check_line_feeds(place.frame, out)
        return out[begin - groups[0].begin : end - groups[0].begin]

    def _windows(self, place: Place, wanted: range) -> tuple[list[bytes], np.ndarray]:
        """Returns the texts of windows of a frame, and their unused bits; reads no more than they need."""
        from ..windows import frames

        header, record = place.frame.header, windows_record(place)
        bits, first, end = record.window_bits, 0, record.data_bytes
        if not header.keeps_context:
            first = wanted.start - wanted.start % (8 // gcd(bits, 8))  # begins at a byte
            end = -(-wanted.stop * bits // 8)
        data = self.data(place, first * bits // 8, end)
        model = self._decoder.model(place.frame.archive)
        windows = frames.decode_windows(model, header, data, wanted, first=first)
        return windows.texts, windows.spare_bits


def windows_record(place: Place) -> WindowsRecord:
    """Returns how a frame of method windows is divided."""
    record = place.frame.header.windows
    assert record is not None
    return record
