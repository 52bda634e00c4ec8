"""Parts of archives: a range of the text, or some windows, of which no more is read and decoded than they need.

Where the file is one archive with an index, a range of the text is found by it; otherwise, and for windows, the headers
of all frames are read first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import CorruptError, FormatError, LLMZipError, SettingsError
from ..format.headers import WINDOWS, Frame, WindowsRecord, is_readable
from ..format.index import ArchiveIndex, read_frame, read_index
from ..format.reading import Position, read_archives
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


class Salvaged(NamedTuple):
    """A part of the text, or the reason why it is lost.

    Attributes:
        begin, end: of the part, in bytes; an end of None stands for all that came after.
        text: the part; None if it is lost.
        reason: why it is lost.
    """

    begin: int
    end: int | None
    text: bytes | None
    reason: str


class PartReader:
    """Reads parts of the text of a file of archives.

    Args:
        source: a seekable binary file, at its start.
        settings: model, engine.
        salvaging: take what is left of a file that ends too early, or whose headers are damaged from some place on.

    Raises:
        FormatError, CorruptError, TruncatedError: as docs/format.md section 8 says.
        SettingsError: the file is not seekable.
    """

    def __init__(self, source: BinaryIO, settings: DecompressSettings, *, salvaging: bool = False) -> None:
        if not source.seekable():
            raise SettingsError("parts can only be read from a file, not from a pipe")
        self._source = source
        self._decoder = FrameDecoder(settings)
        self._places: list[Place] | None = None
        self._rest: Salvaged | None = None
        self._kept: dict[int, bytes] = {}
        self._index = None if salvaging else read_index(source)
        if self._index is None:
            self._places = self._all_places(salvaging=salvaging)

    @property
    def places(self) -> list[Place]:
        """All frames, whose headers are read if that was not done before.

        Raises:
            FormatError, CorruptError, TruncatedError: as docs/format.md section 8 says.
        """
        if self._places is None:
            self._source.seek(0)
            self._places = self._all_places(salvaging=False)
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

    def salvage(self) -> Iterator[Salvaged]:
        """Yields all of the text that can be saved: frame by frame, and frames of windows by their groups."""
        for place in self.places:
            header = place.frame.header
            if header.method == WINDOWS:
                yield from self._salvaged_windows(place)
                continue
            try:
                yield Salvaged(place.begin, place.end, self._decoder.decode(self._whole(place)), "")
            except CorruptError as error:
                yield Salvaged(place.begin, place.end, None, str(error))
        if self._rest is not None:
            yield self._rest

    def _all_places(self, *, salvaging: bool) -> list[Place]:
        """Reads the headers of all frames.

        Args:
            salvaging: whether to note what is lost where the headers end too early, instead of raising an error.
        """
        places: list[Place] = []
        num_bytes = num_windows = 0
        position = Position()
        try:
            for frame in read_archives(self._source, skip_payloads=True, position=position):
                place = Place(frame, num_bytes, num_windows)
                places.append(place)
                num_bytes, num_windows = place.end, num_windows + place.num_windows
        except (FormatError, CorruptError) as error:  # TruncatedError is a CorruptError
            if not salvaging or (not places and isinstance(error, FormatError)):
                raise
            self._rest = _lost_rest(places, position, error)
        return places

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

        record = _record(place)
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

        header, record = place.frame.header, _record(place)
        bits, first, end = record.window_bits, 0, record.data_bytes
        if not header.keeps_context:
            first = wanted.start - wanted.start % (8 // gcd(bits, 8))  # begins at a byte
            end = -(-wanted.stop * bits // 8)
        data = self.data(place, first * bits // 8, end)
        model = self._decoder.model(place.frame.archive)
        windows = frames.decode_windows(model, header, data, wanted, first=first)
        return windows.texts, windows.spare_bits

    def _salvaged_windows(self, place: Place) -> Iterator[Salvaged]:
        """Yields the groups of a frame of windows."""
        from ..windows import frames

        try:
            groups = frames.directory(place.frame.header, self.data(place, _record(place).data_bytes))
        except CorruptError as error:
            yield Salvaged(place.begin, place.end, None, f"frame {place.frame.number}: {error}")
            return
        try:
            texts, _ = self._windows(place, range(place.num_windows))
        except CorruptError:
            texts = []
        for group in groups:
            begin, end = place.begin + group.begin, place.begin + group.end
            if not texts:
                text = self._group_alone(place, group.windows)
            else:
                text = b"".join(texts[number] for number in group.windows)
            if group.holds(text):
                yield Salvaged(begin, end, text, "")
            else:
                numbers = f"{group.windows.start + place.first_window} to {group.windows.stop + place.first_window - 1}"
                yield Salvaged(begin, end, None, f"frame {place.frame.number}: damaged: windows {numbers}")

    def _group_alone(self, place: Place, windows: range) -> bytes:
        """Returns the text of a group, empty if it does not decode."""
        try:
            return b"".join(self._windows(place, windows)[0])
        except LLMZipError:
            return b""


def _record(place: Place) -> WindowsRecord:
    record = place.frame.header.windows
    assert record is not None
    return record


def _lost_rest(places: list[Place], position: Position, error: LLMZipError) -> Salvaged:
    """Returns what is lost where the headers end too early.

    Args:
        places: the frames before.
        position: where that is.
        error: what is wrong there.
    """
    parser, begin = position.parser, places[-1].end if places else 0
    last = places[-1].frame if places else None
    if parser is not None and parser.unfinished is not None:
        head = parser.unfinished
        number = last.number + 1 if last is not None and last.archive is parser.header else 0
        if is_readable(head, alone=number == 0 and head.last):
            last_one = ", the last one," if head.last else ""
            reason = f"frame {number}{last_one} of {head.original_bytes:,} bytes is not whole: {error}"
            return Salvaged(begin, begin + head.original_bytes if head.last else None, None, reason)
    elif parser is not None and last is not None and last.archive is parser.header and last.header.last:
        return Salvaged(begin, begin, None, str(error))
    return Salvaged(begin, None, None, str(error))
