"""What an interrupted compression has done: drafts of frames in a file, so that no text is coded twice.

A draft is found by the digest of the text that it stands for. So it does not matter where a run was killed, nor whether
the input has changed since: what is not in the journal is computed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import zstandard

from .._version import FORMAT_VERSION, __version__
from ..errors import CorruptError, LLMZipError
from ..format import writing
from ..format.headers import MAX_FRAME_BYTES, Header
from ..format.index import parse_frame
from ..inference.on_demand import ModelOnDemand
from ..settings import CompressSettings
from ..system import forks
from ..system.streams import read_upto, write_all
from .drafts import Draft

_MAGIC = b"llmzip journal 1\n"
_FOREIGN = "holds something else than what --resume keeps; remove it"
_MAX_SETTINGS_BYTES = 1 << 20
_HEAD = struct.Struct("<IB32sd")  # size of the frame, kind of the draft, digest of its text, ideal length in bits
_MAX_RECORD_BYTES = MAX_FRAME_BYTES + 64
_SHOWN_SETTINGS = ("level", "model", "prompt", "arithmetic", "dtype", "context", "rows", "overlap", "window_bits")


class DraftJournal:
    """A journal in a file; threads may share it.

    Args:
        file: can be read and written, and seek; the caller makes sure that nobody else has it.
        settings: those of the run; an earlier run must have had the same ones.
        model: that of the run.

    Attributes:
        num_found: number of drafts that earlier runs have left.

    Raises:
        LLMZipError: the file is no journal, or one of another version or other settings.
    """

    def __init__(self, file: BinaryIO, settings: CompressSettings, model: ModelOnDemand) -> None:
        self._file, self._lock = file, forks.Lock()
        self._due = b""  # what the file must begin with and does not yet
        self._places: dict[tuple[int, bytes], tuple[int, int, float]] = {}
        self._open(_description(settings, model))
        self.num_found = len(self._places)

    def draft(self, kind: int, text: bytes, make: Callable[[], Draft]) -> Draft:
        """Returns the draft of a text, from the journal if it is there; else makes it and keeps it.

        Args:
            kind: distinguishes drafts that are made in different ways.
            text: what the draft stands for, at least 1 byte.
            make: makes the draft.
        """
        found = self.find(kind, text)
        if found is None:
            found = make()
            self.keep(kind, found)
        return found

    def find(self, kind: int, text: bytes) -> Draft | None:
        """Returns the draft of a text, if it is in the journal and whole; the arguments are those of `draft`."""
        with self._lock:
            place = self._places.get((kind, hashlib.sha256(text).digest()))
            if place is None:
                return None
            offset, size, bits = place
            self._file.seek(offset)
            packed = read_upto(self._file, size)
        try:
            frame = parse_frame(packed)
        except CorruptError:
            return None
        if frame.crc32 != zlib.crc32(text) or frame.header.original_bytes != len(text):
            return None
        return Draft(frame.header, frame.payload, text, None if math.isnan(bits) else bits)

    def keep(self, kind: int, draft: Draft) -> None:
        """Writes a draft to the disk."""
        digest, bits = hashlib.sha256(draft.original).digest(), math.nan if draft.bits is None else draft.bits
        packed = writing.pack_frame(draft.header, draft.payload, zlib.crc32(draft.original))
        head = _HEAD.pack(len(packed), kind, digest, bits)
        with self._lock:
            write_all(self._file, self._due)
            self._due = b""
            offset = self._file.seek(0, io.SEEK_END)
            write_all(self._file, head + packed + zlib.crc32(head + packed).to_bytes(4, "little"))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._places[kind, digest] = (offset + len(head), len(packed), bits)

    def _open(self, description: dict[str, Any]) -> None:
        """Reads the places of all whole drafts, and cuts off what a kill has left behind them."""
        line = json.dumps(description, sort_keys=True).encode() + b"\n"
        self._file.seek(0)
        start = read_upto(self._file, len(_MAGIC))
        if start == _MAGIC[: len(start)] and len(start) < len(_MAGIC):
            found = b""  # new, or killed at its first byte
        elif start != _MAGIC:
            raise LLMZipError(f"{self._file.name} {_FOREIGN}")
        else:
            found = self._file.readline(_MAX_SETTINGS_BYTES)
        if not found.endswith(b"\n"):
            self._file.seek(0)
            self._file.truncate()
            self._due = _MAGIC + line
            return
        if found != line:
            raise LLMZipError(f"{self._file.name} {_difference(found, description)}")
        end = self._file.tell()
        while (size := self._record(end)) is not None:
            end += size
        self._file.truncate(end)

    def _record(self, offset: int) -> int | None:
        """Notes the draft at a place; returns the size of its record, or None if there is no whole one."""
        self._file.seek(offset)
        head = read_upto(self._file, _HEAD.size)
        if len(head) < _HEAD.size:
            return None
        size, kind, digest, bits = _HEAD.unpack(head)
        if size > _MAX_RECORD_BYTES:
            return None
        packed = read_upto(self._file, size + 4)
        if len(packed) < size + 4 or zlib.crc32(head + packed[:size]) != int.from_bytes(packed[size:], "little"):
            return None
        self._places[kind, digest] = (offset + _HEAD.size, size, bits)
        return _HEAD.size + len(packed)


def _description(settings: CompressSettings, model: ModelOnDemand) -> dict[str, Any]:
    """Returns all that a draft depends on besides its text."""
    header: Header = model.archive_header()
    facts: dict[str, Any] = {
        "program": f"llmzip {__version__}",
        "format": FORMAT_VERSION,
        "zstandard": zstandard.__version__,
        "header": writing.pack_header(header).hex(),
    }
    for field in dataclasses.fields(settings):
        if field.name not in ("engine", "recovery", "with_model"):  # none of these changes a draft
            value = getattr(settings, field.name)
            facts[field.name] = hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)
    return facts


def _difference(found: bytes, description: dict[str, Any]) -> str:
    """Says in which setting a journal differs."""
    try:
        earlier = json.loads(found)
        different = [name for name in {**earlier, **description} if earlier.get(name) != description.get(name)]
    except (ValueError, AttributeError):
        return _FOREIGN
    shown = [name for name in different if name in _SHOWN_SETTINGS] or different
    name = shown[0].replace("_", "-")
    return f"was begun with another setting of {name}: run the same command again, or remove it to begin anew"
