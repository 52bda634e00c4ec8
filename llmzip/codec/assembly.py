"""Units of a file from parts that several processes make: the same bytes as if one `ArchiveWriter` had made them.

The parts are archives whose frames are single pieces; whoever has all parts of a unit assembles it, and `joining` makes
one archive of the units. The model and torch are loaded only where a frame, or an archive's header, needs them.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from ..errors import CorruptError, FormatError, SettingsError
from ..format import writing
from ..format.headers import LM, LZMA, MIXED, STORED, ZSTD, Frame, FrameHeader, Header
from ..format.reading import read_archives
from ..inference.on_demand import ModelOnDemand
from ..inference.progress import Progress
from ..settings import CompressSettings
from . import writer
from .drafts import Draft, Drafter, cut_pieces
from .packing import pack_archive

_PIECE_METHODS = (STORED, LM, LZMA, ZSTD, MIXED)
"""Methods of the frames of a part."""


def compress_pieces(data: bytes, settings: CompressSettings, progress: Progress | None = None) -> bytes:
    """Compresses a part of a file into an archive whose frames are single pieces of 2 MiB.

    Its header names the model even if no frame needs it, so that all parts have the same one.

    Args:
        data: up to 64 MiB; all pieces but the file's last one must be whole.
        settings: level, model, engine; without windows, and with exact arithmetic.
        progress: called with numbers of bytes of the original that were done.

    Raises:
        SettingsError: settings or data that parts cannot have.
        ModelError, TokenizerError, EngineError.
    """
    _check(data, settings)
    model = ModelOnDemand.of(settings)
    drafts = list(Drafter(model, settings, progress).piece_drafts(data)) if data else [_empty()]
    return pack_archive(model.archive_header(), drafts)


def assemble_unit(data: bytes, parts: Sequence[BinaryIO | bytes], settings: CompressSettings, *, alone: bool) -> bytes:
    """Makes the archive of a unit from those of its parts, without running the model again.

    Only the plain methods run here, over the whole unit and over neighbouring pieces that no other method suits.

    Args:
        data: all bytes of the unit, up to 64 MiB.
        parts: what `compress_pieces` gave for the unit's parts, in order.
        settings: those that the parts were made with.
        alone: whether the unit is the whole file; the result is then the file's archive.

    Raises:
        CorruptError: a part is damaged, or is not the archive of its bytes by this model.
        SettingsError: settings or data that parts cannot have.
        ModelError, TokenizerError, EngineError: the model, whose digests are in the header, cannot be loaded.
    """
    _check(data, settings)
    model = ModelOnDemand.of(settings)
    pieces = list(_piece_drafts(data, parts, model.archive_header()))
    drafts = Drafter(model, settings, None).best_frames(data, alone=alone, pieces=pieces) if data else [_empty()]
    uses_model = any(draft.header.uses_model for draft in drafts) or not alone
    return pack_archive(model.archive_header() if uses_model else Header(), drafts)


def _check(data: bytes, settings: CompressSettings) -> None:
    """Refuses what cannot be made in parts.

    Raises:
        SettingsError.
    """
    if settings.window_bits is not None:
        raise SettingsError("an archive of windows cannot be made in parts")
    if settings.frame_bytes is not None:
        raise SettingsError("an archive whose frames have a size of their own cannot be made in parts")
    if settings.arithmetic != "exact":
        raise SettingsError("an archive of the float engine cannot be made in parts: they would differ by machine")
    if len(data) > writer.UNIT_BYTES:
        raise SettingsError(f"a part or a unit must have at most {writer.UNIT_BYTES:,} bytes, not {len(data):,}")


def _empty() -> Draft:
    """Returns the only frame of an empty file's archive."""
    return Draft(FrameHeader(STORED, 0, 0), b"", b"")


def _piece_drafts(data: bytes, parts: Sequence[BinaryIO | bytes], expected: Header) -> Iterator[Draft]:
    """Yields the drafts of all pieces from the frames of the parts, checked against the data.

    Raises:
        CorruptError: the parts are not those of the data.
    """
    pieces = iter(cut_pieces(data))
    header = writing.pack_header(expected)
    for number, part in enumerate(parts, 1):
        try:
            for frame in read_archives(io.BytesIO(part) if isinstance(part, bytes) else part):
                if data or frame.header.original_bytes:
                    yield _draft(frame, next(pieces, None), header)
        except (FormatError, CorruptError) as error:
            raise CorruptError(f"part {number}: {error}") from None
    if next(pieces, None) is not None:
        raise CorruptError("the parts end before the unit does")


def _draft(frame: Frame, piece: bytes | None, header: bytes) -> Draft:
    """Returns a frame as the draft of its piece.

    Args:
        frame: of a part.
        piece: its bytes; None if the unit has no more.
        header: that the part's archive must have.

    Raises:
        CorruptError: the frame is not that of the piece.
    """
    if writing.pack_header(frame.archive) != header:
        raise CorruptError("made with another model or prompt")
    if piece is None:
        raise CorruptError(f"frame {frame.number}: begins where the unit ends")
    if frame.header.original_bytes != len(piece) or frame.header.method not in _PIECE_METHODS:
        raise CorruptError(
            f"frame {frame.number}: its {frame.header.original_bytes:,} bytes are not a piece of the unit"
        )
    if frame.crc32 != zlib.crc32(piece):
        raise CorruptError(f"frame {frame.number}: its text is not that of the unit")
    return Draft(frame.header, frame.payload, piece)
