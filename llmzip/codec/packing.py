"""Frames to archives: the header before them, the mark of the last one, the index after them.

Knows how frames are packed, not how they are made.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ResourceError
from ..format import headers, writing
from ..format.headers import CarriedModel, FrameHeader, Header

if TYPE_CHECKING:
    from .drafts import Draft


class ArchivePacker:
    """Packs one archive, frame by frame.

    Attributes:
        num_bytes: size of what was packed so far, the header included.
    """

    def __init__(self) -> None:
        self.num_bytes = 0
        self._header = self._before = b""
        self._entries: list[tuple[int, int, int]] = []

    @property
    def has_header(self) -> bool:
        """Whether the archive has begun."""
        return bool(self._header)

    def begin(self, header: Header, carried: CarriedModel | None = None) -> None:
        """Begins the archive; its header is packed with the first frame, whose check covers it.

        Args:
            header: of the archive.
            carried: a model to write before it; None for none.
        """
        self._header = writing.pack_header(header)
        self._before = b"" if carried is None else writing.pack_carried(carried)

    def frame(self, header: FrameHeader, payload: bytes, crc32: int, line_feeds: int, *, last: bool) -> bytes:
        """Returns the next frame as it is written, after a carried model and the header if it is the first one.

        Args:
            header: of the frame; whether it is marked as the last one does not count.
            payload: of the frame.
            crc32: checksum of the original bytes.
            line_feeds: number of line feeds among them.
            last: whether the frame is the archive's last one.

        Raises:
            ResourceError: an archive cannot have so many frames.
        """
        if len(self._entries) == headers.MAX_INDEX_ENTRIES:
            raise ResourceError(f"an archive cannot have more than {headers.MAX_INDEX_ENTRIES:,} frames")
        header = headers.with_last(header, last)
        if not headers.is_readable(header, alone=last and not self._entries):
            raise RuntimeError(f"no reader would accept this frame: {header}")
        prefix = b"" if self._entries else self._header
        packed = writing.pack_frame(header, payload, crc32, prefix)
        self._entries.append((len(packed) - len(prefix), header.original_bytes, line_feeds))
        packed, self._before = self._before + packed, b""
        self.num_bytes += len(packed)
        return packed

    def draft(self, draft: Draft, *, last: bool) -> bytes:
        """Returns a draft as `frame` does."""
        original = draft.original
        return self.frame(draft.header, draft.payload, zlib.crc32(original), original.count(b"\n"), last=last)

    def index(self) -> bytes:
        """Returns what follows the last frame: the index, or nothing if there is only one frame."""
        index = writing.pack_index(self._entries) if len(self._entries) > 1 else b""
        self.num_bytes += len(index)
        return index


def pack_archive(header: Header, drafts: Sequence[Draft]) -> bytes:
    """Packs a whole archive.

    Args:
        header: of the archive.
        drafts: its frames, at least one.
    """
    packer = ArchivePacker()
    packer.begin(header)
    frames = [packer.draft(draft, last=number == len(drafts)) for number, draft in enumerate(drafts, 1)]
    return b"".join(frames) + packer.index()
