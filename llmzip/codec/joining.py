"""One archive from several with the same header: their frames one after the other, and one index. Decodes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import CorruptError, FormatError, TruncatedError
from ..format.headers import Frame, Header, is_readable
from ..format.reading import read_archives
from ..system.streams import write_all
from .packing import ArchivePacker


@dataclass
class JoinReport:
    """An archive that was made from others.

    Attributes:
        original_bytes, compressed_bytes: totals, the latter with header and index.
        frames: their number.
        tokens: of the language model, in all frames.
    """

    original_bytes: int = 0
    compressed_bytes: int = 0
    frames: int = 0
    tokens: int = 0


def join_archives(sources: Iterable[BinaryIO], sink: BinaryIO, line_feeds: Iterable[int]) -> JoinReport:
    """Joins archives into one, whose text is theirs one after the other.

    Frames keep their bytes, but for the mark of the last one and the check of the first one, which covers the header.
    The memory holds a few frames at a time, and the index. What `assemble_unit` made of all units of a file gives the
    archive that `ArchiveWriter` makes of the file.

    Args:
        sources: binary files at the beginnings of archives with the same header; each is read to its end before the
            next one is asked for, so that an iterator may open and close them.
        sink: a binary file; it need not be seekable. After an error what was written to it is of no use.
        line_feeds: number of line feeds in the text of each frame, in order, for the index. Sources of one frame do
            not say it.

    Raises:
        FormatError: a source is not an archive, or its header is not that of the first one.
        CorruptError, TruncatedError: a source is damaged, or there is none.
        ResourceError: the archive would have more frames than the format allows.
        OSError: from the files.
    """
    packer, report = ArchivePacker(), JoinReport()
    counts = iter(line_feeds)
    header: Header | None = None
    waiting: Frame | None = None  # the last one of a source is the archive's last one if there is no further source

    def write(frame: Frame, *, last: bool) -> None:
        if not is_readable(frame.header, alone=last and not report.frames):
            raise FormatError("the archive of an empty file cannot be joined to others")
        write_all(sink, packer.frame(frame.header, frame.payload, frame.crc32, next(counts), last=last))
        report.frames += 1
        report.original_bytes += frame.header.original_bytes
        report.tokens += frame.header.num_tokens

    for number, source in enumerate(sources, 1):
        if waiting is not None:
            write(waiting, last=False)
            waiting = None
        for frame in _frames(source, number):
            if header is None:
                header = frame.archive
                packer.begin(header)
            elif frame.archive != header:
                raise FormatError(f"archive {number} cannot be joined to the first one: its model or prompt is another")
            if waiting is not None:  # the source has several archives
                write(waiting, last=False)
            waiting = frame if frame.header.last else None
            if waiting is None:
                write(frame, last=False)
    if waiting is None:
        raise TruncatedError("there are no archives to join")
    write(waiting, last=True)
    write_all(sink, packer.index())
    report.compressed_bytes = packer.num_bytes
    return report


def _frames(source: BinaryIO, number: int) -> Iterator[Frame]:
    """Yields the frames of a source, whose number errors name."""
    try:
        yield from read_archives(source)
    except (FormatError, CorruptError) as error:
        raise type(error)(f"archive {number}: {error}") from None
