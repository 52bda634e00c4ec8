"""Facts from the headers of a file, and where its models are, without decoding anything.

Must not know engines, coders or payloads.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from .._version import FORMAT_VERSION
from ..format.headers import SKIP, USER_MODEL, Frame, Header, LineCounts
from ..format.reading import Position, read_archives
from ..format.recovery import parse_head
from ..models.choice import describe_model, place_of_model


@dataclass(frozen=True)
class FrameInfo:
    """One frame as its header describes it.

    Sizes are in bytes. `rows` is 0 where the profile's rule applies, `line_feeds` None where the archive has no index.
    """

    method: str
    offset_bytes: int
    compressed_bytes: int
    original_bytes: int
    tokens: int
    profile: int
    rows: int
    crc32: int
    line_feeds: int | None = None


@dataclass(frozen=True)
class RecoveryInfo:
    """Recovery data as its first packet describes it (docs/format.md section 5b).

    Attributes:
        protected_bytes: how many of the bytes before it it protects.
        block_bytes, num_blocks: size and number of the blocks that these are cut into.
        parity_blocks: how many damaged blocks it can mend.
    """

    protected_bytes: int
    block_bytes: int
    num_blocks: int
    parity_blocks: int


@dataclass(frozen=True)
class ArchiveEntry:
    """One archive of a file.

    `recovery` is None unless it is recovery data, and then no frame has text. `model_folder` is where its model is,
    None if it is not on this machine or the file carries it (`carries_model`).
    """

    format_version: int
    model_code: int
    model: str | None
    model_digest: str | None
    tokenizer_digest: str | None
    recovery: RecoveryInfo | None = None
    model_folder: str | None = None
    carries_model: bool = False
    frames: list[FrameInfo] = field(default_factory=list)

    @property
    def needs_user_model(self) -> bool:
        """Whether the header names a model by its digests."""
        return self.model_code == USER_MODEL


@dataclass(frozen=True)
class ArchiveInfo:
    """Facts from the headers of a file."""

    archives: list[ArchiveEntry]
    compressed_bytes: int

    @property
    def original_bytes(self) -> int:
        """Size of the text in bytes."""
        return sum(frame.original_bytes for archive in self.archives for frame in archive.frames)

    @property
    def num_frames(self) -> int:
        """Number of frames of all archives."""
        return sum(len(archive.frames) for archive in self.archives)

    @property
    def frames_by_method(self) -> dict[str, int]:
        """Number of frames of each method, in the order in which methods first occur."""
        methods: dict[str, int] = {}
        for archive in self.archives:
            for frame in archive.frames:
                methods[frame.method] = methods.get(frame.method, 0) + 1
        return methods

    @property
    def model(self) -> str | None:
        """Name of the model that decoding needs, with commas between if archives need different ones; or None."""
        return ",".join(dict.fromkeys(archive.model for archive in self.archives if archive.model is not None)) or None

    def to_dict(self) -> dict[str, Any]:
        """Returns a form for JSON; later versions only add keys."""
        return {
            "schema": 1,
            "original_bytes": self.original_bytes,
            "compressed_bytes": self.compressed_bytes,
            "bits_per_byte": 8 * self.compressed_bytes / self.original_bytes if self.original_bytes else None,
            "num_frames": self.num_frames,
            "frames_by_method": self.frames_by_method,
            "model": self.model,
            "archives": [asdict(archive) for archive in self.archives],
        }


def read_info(source: BinaryIO) -> ArchiveInfo:
    """Reads the headers of a file of archives; payloads are skipped, so damage inside them goes unseen.

    Args:
        source: a binary file at its start; seekable is faster.

    Raises:
        FormatError, CorruptError, TruncatedError: as docs/format.md section 8 says.
    """
    archives: list[ArchiveEntry] = []
    parsed = Position()
    indexes: list[LineCounts] = []
    places: dict[tuple[Header, bool], Path | None] = {}
    for frame in read_archives(source, skip_payloads=True, skip_models=True, position=parsed):
        if frame.number == 0:
            indexes.append(frame.index)
            looked_for = frame.archive, frame.archive.carried is None
            if looked_for not in places:  # many archives of a file have the same model
                places[looked_for] = place_of_model(frame.archive)
            folder = places[looked_for]
            archives.append(
                ArchiveEntry(
                    FORMAT_VERSION,
                    frame.archive.model_code,
                    *describe_model(frame.archive),
                    recovery=_recovery(frame),
                    model_folder=None if folder is None else str(folder),
                    carries_model=frame.archive.carried is not None,
                )
            )
        head = frame.header
        archives[-1].frames.append(
            FrameInfo(
                head.method_name,
                frame.offset_bytes,
                frame.size_bytes,
                head.original_bytes,
                head.num_tokens,
                head.profile,
                head.rows,
                frame.crc32,
            )
        )
    for archive, index in zip(archives, indexes, strict=True):
        if index.line_feeds is not None:
            archive.frames[:] = map(_with_line_feeds, archive.frames, index.line_feeds)
    return ArchiveInfo(archives, parsed.offset_bytes)


def _recovery(frame: Frame) -> RecoveryInfo | None:
    """Returns the recovery data that an archive's first frame belongs to; None if it is another one."""
    head = parse_head(frame.payload) if frame.header.method == SKIP else None
    if head is None:
        return None
    layout = head.layout
    return RecoveryInfo(layout.protected_bytes, layout.block_bytes, layout.num_blocks, layout.num_parity)


def _with_line_feeds(frame: FrameInfo, line_feeds: int) -> FrameInfo:
    return replace(frame, line_feeds=line_feeds)
