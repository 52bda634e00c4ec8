"""What is done with the parts of one large file, and how its output comes of them.

A part is an object of the destination, named by the file's key, so that it is right whoever made it. Whoever makes the
last part of a unit assembles the unit, and whoever makes the last unit joins all of them: nobody waits. If two workers
take themselves for the last one, both write the same bytes.
"""

from __future__ import annotations

import abc
import bisect
import contextlib
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, cast

from ..codec import writer
from ..codec.assembly import assemble_unit, compress_pieces
from ..codec.joining import join_archives
from ..codec.lines import check_line_feeds
from ..codec.parallel import in_order
from ..codec.reader import FrameDecoder
from ..errors import CorruptError, LLMZipError
from ..format.headers import Frame
from ..format.index import ArchiveIndex, read_frames, read_index
from ..format.reading import read_archives
from ..system.filenames import FileProblem
from .existing import HashingReader, HashingWriter, Pair, frame_holds, held_line_feeds
from .job import ROWS, WORK, Job, Operation
from .rows import Row, read_rows, shown_path, write_rows
from .storage import with_retries
from .tasks import InputFile, Part, file_key
from .whole import check_unchanged, headers_of, measured_row, pair_row


@dataclass(frozen=True)
class PartResult:
    """What became of a part.

    Attributes:
        rows: the file's row, if this part completed it, or the part's own; none otherwise.
        is_lost: whether an output that an earlier run had made is damaged: the file must be made anew.
        is_made: whether there was no complete output.
    """

    rows: list[Row] = field(default_factory=list)
    is_lost: bool = False
    is_made: bool = False


class LargeFiles:
    """Does what the job says with parts of files.

    Args:
        job: what is done.
        worker: names this process in rows.
    """

    def __init__(self, job: Job, worker: str) -> None:
        self._job = job
        self._worker = worker

    def run(self, file: InputFile, part: Part) -> PartResult:
        """Does it with one part; what a retry may mend is tried again.

        Raises:
            LLMZipError, FileProblem, OSError: the part failed.
        """
        match self._job.operation:
            case Operation.ENTROPY:
                begin, end = part.begin, part.end
                row = with_retries(lambda: measured_row(self._job, file, begin, end, time.perf_counter(), self._worker))
                return PartResult([row])
            case Operation.TEST:
                return PartResult([with_retries(lambda: self._test(file, part))])
            case Operation.COMPRESS:
                output: _LargeOutput = _LargeArchive(self._job, file, self._worker)
            case Operation.DECOMPRESS:
                output = _LargeText(self._job, file, self._worker)
        return with_retries(lambda: output.run(part))

    def _test(self, file: InputFile, part: Part) -> Row:
        started = time.perf_counter()
        check_unchanged(self._job, file)
        num_bytes = tokens = archive_bytes = 0
        decoder = FrameDecoder(self._job.decompress)
        with self._job.source.open(file.name) as archive:
            index = _index(archive)
            for frame, text in _decoded(decoder, read_frames(archive, index, part.frames)):
                num_bytes += len(text)
                tokens += frame.header.num_tokens
                archive_bytes += frame.size_bytes
        return Row(
            shown_path(self._job.source.uri_of(file.name)),
            part.text_begin,
            bytes=num_bytes,
            bits=8 * archive_bytes,
            tokens=tokens,
            archive_bytes=archive_bytes,
            seconds=round(time.perf_counter() - started, 6),
            worker=self._worker,
        )


class _LargeOutput(abc.ABC):
    """The output of a large file: its parts, and what comes of them.

    Args:
        job: what is done.
        file: the input.
        worker: names this process in rows.
    """

    def __init__(self, job: Job, file: InputFile, worker: str) -> None:
        self._job, self._file, self._worker = job, file, worker
        self._output = job.output(file.name)
        key = file_key(job, file)
        self._folder = f"{WORK}/{key}"
        self._rows = f"{ROWS}/{key}.parquet"

    def run(self, part: Part) -> PartResult:
        """Makes a part unless it is there, and what it is the last part of."""
        check_unchanged(self._job, self._file)
        done = self._done()
        if done is not None:
            return self._check(part, done)
        try:
            if not self._has(self._part_name(part, part.number)):
                self._make(part)
                check_unchanged(self._job, self._file)
            row = self._finish(part)
            return PartResult([] if row is None else [row], is_made=True)
        except FileNotFoundError:
            # Another worker has removed the parts meanwhile: it has joined them, or its run has ended. Without a row
            # of the file, the driver gives its parts out again.
            check_unchanged(self._job, self._file)
            return PartResult(is_made=True)

    def _done(self) -> Row | None:
        """Returns the file's row, if its output was completed."""
        with contextlib.suppress(CorruptError):
            rows = read_rows(self._job.dest, self._rows)
            if rows:
                return rows[0]
        return None

    def _check(self, part: Part, done: Row) -> PartResult:
        """Looks at what an earlier run made of the part; forgets the output if it is not right."""
        store, name = self._job.dest, self._output
        stat = store.stat(name)
        expected = done.archive_bytes if self._job.operation is Operation.COMPRESS else done.bytes
        try:
            if stat is not None and stat.size_bytes == expected and self._is_right(part):
                return PartResult([replace(done, kept=True)] if part.number == 0 else [])
        except (LLMZipError, FileNotFoundError):
            pass
        store.remove(self._rows)
        store.remove(name)
        return PartResult(is_lost=True)

    def _completed(self, pair: Pair, started: float) -> Row:
        """Records that the output is complete, then removes what it was made of."""
        seconds = time.perf_counter() - started
        row = pair_row(self._job, self._file, self._output, pair, seconds, self._worker)
        write_rows(self._job.dest, self._rows, [row])
        self._job.dest.remove_tree(self._folder)
        return row

    # -- names

    def _has(self, name: str) -> bool:
        return self._job.dest.stat(name) is not None

    def _has_all(self, names: list[str]) -> bool:
        """Whether all objects are there. Parts come about in order, so it is the last ones that are missing longest."""
        return all(map(self._has, reversed(names)))

    def _part_name(self, part: Part, number: int) -> str:
        """Returns the name of a part, by its number, of one cut: an earlier run may have cut the file otherwise."""
        return f"{self._folder}/part-{part.part_bytes}-{number:08d}"

    def _forget(self, names: list[str]) -> None:
        """Removes parts that are damaged, so that the next run makes them anew."""
        for name in names:
            self._job.dest.remove(name)

    # -- what the two operations differ in

    @abc.abstractmethod
    def _make(self, part: Part) -> None:
        """Makes the object of a part."""

    @abc.abstractmethod
    def _finish(self, part: Part) -> Row | None:
        """Makes what the part is the last part of; returns the file's row if that is all of it."""

    @abc.abstractmethod
    def _is_right(self, part: Part) -> bool:
        """Whether the complete output agrees with the input, as far as the part goes."""


class _LargeArchive(_LargeOutput):
    """The archive of a large text: parts become units, units the archive that one machine would have made."""

    def _make(self, part: Part) -> None:
        store = self._job.source
        archive = compress_pieces(store.read(self._file.name, part.begin, part.end), self._job.compress)
        check_unchanged(self._job, self._file)
        self._job.dest.write(self._part_name(part, part.number), archive)

    def _finish(self, part: Part) -> Row | None:
        unit = part.begin // writer.UNIT_BYTES
        per_unit = writer.UNIT_BYTES // part.part_bytes
        numbers = range(unit * per_unit, min((unit + 1) * per_unit, part.count))
        num_units = -(-part.count // per_unit)
        started = time.perf_counter()
        if not self._has(self._unit_name(unit)):
            parts = [self._part_name(part, number) for number in numbers]
            if not self._has_all(parts):
                return None
            self._assemble(unit, parts, alone=num_units == 1)
        if not self._has_all([self._unit_name(number) for number in range(num_units)]):
            return None
        return self._completed(self._join(num_units), started)

    def _assemble(self, unit: int, names: list[str], *, alone: bool) -> None:
        job, size = self._job, self._file.size_bytes
        begin = unit * writer.UNIT_BYTES
        data = job.source.read(self._file.name, begin, min(begin + writer.UNIT_BYTES, size))
        parts = [job.dest.read_all(name) for name in names]
        try:
            archive = assemble_unit(data, parts, job.compress, alone=alone)
        except CorruptError:
            self._forget(names)
            raise
        job.dest.write(self._unit_name(unit), archive)

    def _join(self, num_units: int) -> Pair:
        """Writes the archive, and reads the text once more: for its digest, and to see that the units are of it."""
        job = self._job
        with job.source.open(self._file.name) as text:
            source = HashingReader(text)
            try:
                line_feeds = self._line_feeds(num_units, cast("BinaryIO", source))
            except LLMZipError:
                line_feeds = None
            if line_feeds is None or source.read(1):
                job.dest.remove_tree(self._folder)
                raise CorruptError("its units are damaged, or it was changed while the run was under way; run it again")
        with job.dest.create(self._output, size_bytes=self._file.size_bytes) as output:
            sink = HashingWriter(output)
            report = join_archives(self._units(num_units), cast("BinaryIO", sink), line_feeds)
            check_unchanged(job, self._file)
            if report.original_bytes != source.num_bytes:
                raise FileProblem("was changed while the run was under way; run it again")
        return Pair(source.num_bytes, sink.num_bytes, source.sha256, sink.sha256, report.tokens)

    def _line_feeds(self, num_units: int, text: BinaryIO) -> array[int] | None:
        """Returns the number of line feeds of each frame of the units; None if the text is not theirs.

        Raises:
            LLMZipError: a unit is damaged.
        """
        line_feeds = array("I")
        for frame in (frame for unit in self._units(num_units) for frame in read_archives(unit)):
            number = held_line_feeds(frame, text)
            if number is None:
                return None
            line_feeds.append(number)
        return line_feeds

    def _units(self, num_units: int) -> Iterator[BinaryIO]:
        for number in range(num_units):
            with self._job.dest.open(self._unit_name(number)) as unit:
                yield unit

    def _unit_name(self, number: int) -> str:
        return f"{self._folder}/unit-{number:08d}"

    def _is_right(self, part: Part) -> bool:
        """Checks the frames of the unit that the part begins; the other parts of the unit leave it to that one."""
        if part.begin % writer.UNIT_BYTES:
            return True
        end = min(part.begin + writer.UNIT_BYTES, self._file.size_bytes)
        with self._job.dest.open(self._output) as archive, self._job.source.open(self._file.name) as text:
            index = read_index(archive)
            if index is None:  # one frame
                frames = _only_frame(archive)
            else:
                first, last = (bisect.bisect_left(index.begins, place) for place in (part.begin, end))
                frames = read_frames(archive, index, range(first, last))
            text.seek(part.begin)
            allowed = headers_of(self._job)
            return all(frame.archive in allowed and frame_holds(frame, text) for frame in frames)


class _LargeText(_LargeOutput):
    """The text of a large archive: the texts of its parts, one after the other."""

    def _make(self, part: Part) -> None:
        decoder = FrameDecoder(self._job.decompress)
        with self._job.source.open(self._file.name) as archive:
            index = _index(archive)
            with self._job.dest.create(self._part_name(part, part.number)) as sink:
                for frame, text in _decoded(decoder, read_frames(archive, index, part.frames)):
                    check_line_feeds(frame, text)
                    sink.write(text)

    def _finish(self, part: Part) -> Row | None:
        names = [self._part_name(part, number) for number in range(part.count)]
        if not self._has_all(names):
            return None
        started, job = time.perf_counter(), self._job
        with job.source.open(self._file.name) as archive:
            index = _index(archive)
            source = HashingReader(archive)
            with job.dest.create(self._output, size_bytes=index.original_bytes) as output:
                sink = HashingWriter(output)
                text = cast("BinaryIO", _Copier(self._texts(names), sink))
                frames = read_archives(cast("BinaryIO", source))
                if not all(frame_holds(frame, text) for frame in frames) or text.read(1):
                    self._forget(names)
                    raise CorruptError("the parts of the text are not those of the archive; run it again")
                check_unchanged(job, self._file)
        return self._completed(Pair(sink.num_bytes, source.num_bytes, sink.sha256, source.sha256, None), started)

    def _texts(self, names: list[str]) -> Iterator[BinaryIO]:
        for name in names:
            with self._job.dest.open(name) as text:
                yield text

    def _is_right(self, part: Part) -> bool:
        with self._job.source.open(self._file.name) as archive, self._job.dest.open(self._output) as text:
            text.seek(part.text_begin)
            frames = read_frames(archive, _index(archive), part.frames)
            return all(frame_holds(frame, text) for frame in frames)


def _decoded(decoder: FrameDecoder, frames: Iterator[Frame]) -> Iterator[tuple[Frame, bytes]]:
    """Yields frames with their texts, in order; several are decoded at once where the worker has the threads."""
    return in_order(decoder.prepare(frames), decoder.decode, decoder.frames_at_once)


class _Copier:
    """A stream that reads others one after the other, and writes what it reads to a sink.

    Args:
        sources: binary files; each is read to its end before the next one is asked for.
        sink: takes all that is read.
    """

    def __init__(self, sources: Iterator[BinaryIO], sink: HashingWriter) -> None:
        self._sources = sources
        self._source = next(sources, None)
        self._sink = sink

    def read(self, size: int) -> bytes:
        """Reads up to `size` bytes, and copies them; b"" only at the end of the last source."""
        while self._source is not None:
            if data := self._source.read(size):
                self._sink.write(data)
                return data
            self._source = next(self._sources, None)
        return b""


def _index(archive: BinaryIO) -> ArchiveIndex:
    """Reads the index that the parts of an archive were cut by.

    Raises:
        FileProblem: there is none any more.
    """
    index = read_index(archive)
    if index is None:
        raise FileProblem("was changed while the run was under way; run it again")
    return index


def _only_frame(archive: BinaryIO) -> Iterator[Frame]:
    """Yields the frames of an archive that is too short for an index."""
    archive.seek(0)
    return read_archives(archive)
