"""Saves what is whole of damaged archives and says what is lost; on request also reads what passed no checksum."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import CorruptError, FormatError, LLMZipError
from ..format.headers import MAGIC, WINDOWS, CarriedModel, Frame, is_readable
from ..format.index import ArchiveIndex, read_frame, read_index
from ..format.reading import Position, read_archives
from ..settings import DecompressSettings
from ..system.streams import read_upto
from .parts import PartReader, Place, placed, windows_record
from .remains import readable_pieces


@dataclass(frozen=True)
class Salvaged:
    """A part of the text: saved, lost, or refused.

    Attributes:
        begin: where it begins in the text, in bytes; a lower bound after a part whose end is unknown.
        end: where it ends; None if the file does not say, and for all that comes after.
        text: the part; None if it is lost or refused.
        reason: why there is no text; empty if there is.
        pieces: what can be read of a lost part, in order, without having passed a checksum.
        line_feeds: number of line feeds in a lost part, if the archive's index says so; else None.
        refused: whether an archive of another format version begins there, which is not damage.
        is_model: whether it is no text, but a model that the file carries before it.
    """

    begin: int
    end: int | None
    text: bytes | None = None
    reason: str = ""
    pieces: tuple[bytes, ...] = ()
    line_feeds: int | None = None
    refused: bool = False
    is_model: bool = False


class Salvager(PartReader):
    """Reads a file of archives as far as that is possible.

    By the index, where the file has a whole one, a damaged frame costs only its own text. Otherwise nothing is found
    after a damaged header. Where a carried model is damaged, the one on this machine is used.

    Args:
        source: a seekable binary file, at its start.
        settings: model, engine.
        unverified: whether to read what is left of lost parts, too.

    Raises:
        FormatError: the file does not begin with an archive, or with one of another version.
        SettingsError: the file is not seekable.
    """

    def __init__(self, source: BinaryIO, settings: DecompressSettings, *, unverified: bool = False) -> None:
        self._unverified = unverified
        self._rest: Salvaged | None = None
        self._lost_models: dict[int, Salvaged] = {}  # by the number of the place before which it is reported
        super().__init__(source, settings)

    def salvage(self) -> Iterator[Salvaged]:
        """Yields all parts of the text in order: frame by frame, and frames of windows by their groups.

        Raises:
            ModelError, EngineError, TokenizerError: the model is needed and not available.
        """
        for number, place in enumerate(self.places if self._index is None else self._places_of(self._index)):
            if number in self._lost_models:
                yield self._lost_models[number]
            if isinstance(place, Salvaged):
                yield place
            elif place.frame.header.method == WINDOWS:
                yield from self._groups(place)
            else:
                yield self._frame(place)
        if self._rest is not None:
            yield self._rest

    def _read_index(self) -> ArchiveIndex | None:
        index = read_index(self._source, allow_damaged_models=True)
        if index is not None:
            self._note_model(index.carried, 0, 0)
        return index

    def _note_model(self, carried: CarriedModel | None, number: int, begin: int) -> None:
        """Notes that a carried model is lost if it is damaged.

        Args:
            carried: the model before a place.
            number: of the place.
            begin: where its text begins.
        """
        if carried is not None and carried.is_damaged:
            reason = "damaged: the checksum of a carried model is wrong"
            self._lost_models[number] = Salvaged(begin, begin, reason=reason, is_model=True)

    def _all_places(self) -> list[Place]:
        """Reads the headers of all frames, up to where that is possible; notes what is lost from there on."""
        places: list[Place] = []
        position = Position()
        frames = read_archives(self._source, skip_payloads=True, allow_damaged_models=True, position=position)
        carried: CarriedModel | None = None
        try:
            for place in placed(frames):
                assert position.parser is not None  # it has parsed the frame
                if position.parser.carried is not carried:
                    carried = position.parser.carried
                    self._note_model(carried, len(places), place.begin)
                places.append(place)
        except (FormatError, CorruptError) as error:  # TruncatedError is a CorruptError
            if not places and isinstance(error, FormatError):
                raise
            self._rest = self._lost_rest(places, position, error)
        return places

    def _places_of(self, index: ArchiveIndex) -> Iterator[Place | Salvaged]:
        """Yields each frame of the index, or that its header is damaged."""
        first_window = 0
        for number in range(len(index)):
            entry = index.entry(number)
            try:
                place = Place(read_frame(self._source, index, number, skip_payload=True), entry.begin, first_window)
            except CorruptError as error:
                end, line_feeds = entry.begin + entry.original_bytes, index.line_feeds[number]
                yield Salvaged(entry.begin, end, reason=str(error), line_feeds=line_feeds)
                continue
            first_window += place.num_windows
            yield place

    def _frame(self, place: Place) -> Salvaged:
        """Returns the text of a frame, or why it is lost."""
        frame = self._whole(place)
        try:
            return Salvaged(place.begin, place.end, self._decoder.decode(frame))
        except CorruptError as error:
            pieces, line_feeds = self._remains(frame), frame.line_feeds
            return Salvaged(place.begin, place.end, reason=str(error), pieces=pieces, line_feeds=line_feeds)

    def _remains(self, frame: Frame) -> tuple[bytes, ...]:
        if self._unverified:
            with contextlib.suppress(CorruptError):  # of the model that the file carries
                return tuple(readable_pieces(self._decoder, frame))
        return ()

    def _groups(self, place: Place) -> Iterator[Salvaged]:
        """Yields the groups of a frame of windows."""
        from ..windows import frames

        try:
            self._decoder.model(place.frame.archive)
        except CorruptError as error:  # of the model that the file carries
            yield Salvaged(place.begin, place.end, reason=f"frame {place.frame.number}: {error}")
            return
        try:
            groups = frames.directory(place.frame.header, self.data(place, windows_record(place).data_bytes))
        except CorruptError as error:
            pieces = self._remains_of_windows(self._whole(place))
            reason = f"frame {place.frame.number}: {error}"
            yield Salvaged(place.begin, place.end, reason=reason, pieces=pieces)
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
                yield Salvaged(begin, end, text)
            else:
                numbers = f"{group.windows.start + place.first_window} to {group.windows.stop + place.first_window - 1}"
                reason = f"frame {place.frame.number}: damaged: windows {numbers}"
                yield Salvaged(begin, end, reason=reason, pieces=(text,) if text and self._unverified else ())

    def _group_alone(self, place: Place, windows: range) -> bytes:
        """Returns the text of a group, empty if it does not decode."""
        try:
            return b"".join(self._windows(place, windows)[0])
        except LLMZipError:
            return b""

    def _remains_of_windows(self, frame: Frame) -> tuple[bytes, ...]:
        """Returns the text of the windows that are there, of a frame without its directory."""
        from ..windows import frames

        record = frame.header.windows
        if not self._unverified or record is None or frame.header.keeps_context:
            return ()
        whole = min(8 * len(frame.payload) // record.window_bits, record.count)
        with contextlib.suppress(CorruptError):
            model = self._decoder.model(frame.archive)
            text = b"".join(frames.decode_windows(model, frame.header, frame.payload, range(whole)).texts)
            return (text,) if text else ()
        return ()

    def _lost_rest(self, places: list[Place], position: Position, error: LLMZipError) -> Salvaged:
        """Returns what is lost where the headers end too early.

        Args:
            places: the frames before.
            position: where that is.
            error: what is wrong there.
        """
        parser, begin = position.parser, places[-1].end if places else 0
        if isinstance(error, FormatError):
            self._source.seek(position.offset_bytes)
            is_archive = read_upto(self._source, len(MAGIC)) == MAGIC
            return Salvaged(begin, None, reason=str(error), refused=is_archive)
        last = places[-1].frame if places else None
        if parser is not None and parser.unfinished is not None and parser.header is not None:
            head = parser.unfinished
            number = last.number + 1 if last is not None and last.archive is parser.header else 0
            if is_readable(head, alone=number == 0 and head.last):
                last_one = ", the last one," if head.last else ""
                reason = f"frame {number}{last_one} of {head.original_bytes:,} bytes is not whole: {error}"
                end = begin + head.original_bytes if head.last else None
                self._source.seek(parser.offset_bytes)
                payload = read_upto(self._source, head.payload_bytes)
                frame = Frame(number, 0, 0, head, payload, 0, parser.header)
                pieces = self._remains_of_windows(frame) if head.method == WINDOWS else self._remains(frame)
                return Salvaged(begin, end, reason=reason, pieces=pieces)
        elif parser is not None and last is not None and last.archive is parser.header and last.header.last:
            return Salvaged(begin, begin, reason=str(error))
        return Salvaged(begin, None, reason=str(error))
