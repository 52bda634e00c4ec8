"""Finds text files and reads them as documents and blocks; must not know tokens, models or torch.

A document is a file, or what lies between NUL bytes in it. Files may be compressed with gzip, xz or zstd. Nothing is
held in memory but one document's part.
"""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import LLMZipError

_READ_BYTES = 1 << 20
_PROBE_BYTES = 1 << 16
_MAX_CONTROL_SHARE = 0.02
_CONTROL = bytes({*range(1, 9), *range(14, 32)} - {27})
_COMPRESSED = {".xz": "xz", ".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class TextFile:
    """A file to read.

    Attributes:
        path: where it is.
        source: number of the argument it came from.
    """

    path: Path
    source: int


@dataclass(frozen=True)
class Block:
    """A part of a document.

    Attributes:
        data: its bytes, at least one.
        begins: it is the first of its document.
    """

    data: bytes
    begins: bool


def find(names: Sequence[str | os.PathLike[str]], without: Path | None = None) -> list[TextFile]:
    """The files that the arguments name; directories stand for all text files below them, in the order of names.

    Args:
        names: files and directories.
        without: a directory to leave out: the one that is written to.

    Raises:
        LLMZipError: a name that is no file or directory, or a directory without text.
    """
    found: list[TextFile] = []
    for source, name in enumerate(names):
        path = Path(name)
        if path.is_dir():
            below = [TextFile(file, source) for file in _walk(path, without) if _looks_like_text(file)]
            if not below:
                raise LLMZipError(f"{path}: no text in this directory")
            found += below
        elif path.exists():
            found.append(TextFile(path, source))
        else:
            raise LLMZipError(f"{path}: no such file or directory")
    return found


def _walk(top: Path, without: Path | None) -> Iterator[Path]:
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (without and _same(Path(folder, name), without))
        )
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file() and path.suffix != ".llmz":
                yield path


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _looks_like_text(path: Path) -> bool:
    """Whether few of the first bytes are control characters or no UTF-8."""
    try:
        with open_text(path) as stream:
            probe = stream.read(_PROBE_BYTES)
    except (OSError, LLMZipError, EOFError, ValueError):
        return False
    controls = len(probe) - len(probe.translate(None, _CONTROL))
    wrong = len(probe.decode("utf-8", "ignore").encode()) < (1 - _MAX_CONTROL_SHARE) * len(probe) - 3
    return bool(probe) and not wrong and max(controls, probe.count(0)) <= _MAX_CONTROL_SHARE * len(probe)


def open_text(path: Path) -> BinaryIO:
    """The bytes of a file, uncompressed if its suffix is .xz, .gz or .zst."""
    kind = _COMPRESSED.get(path.suffix)
    if kind == "xz":
        return cast(BinaryIO, lzma.open(path))
    if kind == "gzip":
        return cast(BinaryIO, gzip.open(path))
    if kind == "zstd":
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return cast(BinaryIO, decompressor.stream_reader(open(path, "rb"), read_across_frames=True))
    return open(path, "rb")


def chunks(path: Path) -> Iterator[bytes]:
    """A file in parts, with every error told by its name.

    Raises:
        LLMZipError: it cannot be read.
    """
    from zstandard import ZstdError

    try:
        with open_text(path) as stream:
            while data := stream.read(_READ_BYTES):
                yield data
    except (OSError, EOFError, lzma.LZMAError, ZstdError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LLMZipError(f"{path}: cannot be read: {reason}") from None


def blocks(path: Path, size: int) -> Iterator[Block]:
    """The documents of a file, cut into blocks of about `size` bytes, at ends of lines where there are any near.

    Args:
        path: of the file.
        size: bytes of a block; at most twice that much is in one.

    Raises:
        LLMZipError: the file cannot be read.
    """
    left, begins = b"", True
    for chunk in chunks(path):
        *ended, left = (left + chunk).split(b"\0")
        for document in ended:
            yield from _cut(document, size, begins)
            begins = True
        while len(left) >= 2 * size:
            end = _line_end(left, size)
            yield Block(left[:end], begins)
            left, begins = left[end:], False
    yield from _cut(left, size, begins)


def _cut(document: bytes, size: int, begins: bool) -> Iterator[Block]:
    start = 0
    while len(document) - start >= 2 * size:
        end = start + _line_end(document[start : start + 2 * size], size)
        yield Block(document[start:end], begins)
        start, begins = end, False
    if start < len(document):
        yield Block(document[start:], begins)


def _line_end(data: bytes, size: int) -> int:
    """A place to cut, from `size` on and below twice that: behind a line, else not inside a UTF-8 sequence."""
    newline = data.find(b"\n", size - 1, 2 * size - 1)
    if newline >= 0:
        return newline + 1
    end = size
    while end < min(size + 3, len(data) - 1) and data[end] & 0xC0 == 0x80:
        end += 1
    return end
