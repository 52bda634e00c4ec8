"""Finds text files and reads them as documents and blocks. Must not know tokens, models or torch.

A document is a file, or the text between NUL bytes in it. Files may be compressed with gzip, xz or zstd. Only a part of
one document is held in memory.
"""

from __future__ import annotations

import gzip
import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from ..errors import LLMZipError

MIN_BYTES = 20_000
"""Bytes of text that a training needs at least."""

_READ_BYTES = 1 << 20  # 1 MiB
_ZSTD_READ_BYTES = 1 << 12  # 4 KiB, which may become much more text
_PROBE_BYTES = 1 << 16  # 64 KiB that show whether a file is text
_MAX_CONTROL_SHARE = 0.02  # of bytes that text does not have
_CONTROL = bytes({*range(1, 9), *range(14, 32)} - {27})
_MAX_ZSTD_WINDOW = 1 << 31  # bytes
_UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


@dataclass(frozen=True)
class TextFile:
    """A file to read.

    Attributes:
        path: where the file is.
        source: number of the argument that it came from.
    """

    path: Path
    source: int


@dataclass(frozen=True)
class Block:
    """A part of a document.

    Attributes:
        data: its bytes, at least one.
        begins: whether it is the first of its document.
    """

    data: bytes
    begins: bool


def find(
    names: Sequence[str | os.PathLike[str]], without: Path | None = None, passed_over: list[Path] | None = None
) -> list[TextFile]:
    """Finds the files that the arguments name; directories stand for all text files below them, in the order of names.

    Args:
        names: files and directories.
        without: a directory to leave out: the one that is written to.
        passed_over: receives the files below directories that are not text.

    Raises:
        LLMZipError: a name that is not a file or directory, a pipe, or a directory without text.
    """
    files: list[TextFile] = []
    for source, name in enumerate(names):
        path = Path(name)
        if os.fspath(name) == "-":
            raise LLMZipError("-: texts are read more than once, so write the standard input to a file first")
        try:
            path.stat()
        except (OSError, ValueError):
            raise LLMZipError(f"{path}: no such file or directory") from None
        if path.is_dir():
            all_below = list(_walk(path, without))
            below = [TextFile(file, source) for file in all_below if _looks_like_text(file)]
            if passed_over is not None:
                passed_over += sorted(set(all_below) - {file.path for file in below})
            if not below:
                raise LLMZipError(f"{path}: no text in this directory")
            files += below
        elif path.is_file():
            files.append(TextFile(path, source))
        else:
            raise LLMZipError(f"{path}: not a regular file; texts are read more than once, so write it to one first")
    return files


def check_size(names: Sequence[str | os.PathLike[str]], without: Path | None = None) -> None:
    """Refuses too little text; reads no more than it must.

    Args:
        names, without: as `find` takes them.

    Raises:
        LLMZipError: what `find` and `chunks` raise, or too little text.
    """
    total = 0
    for file in find(names, without):
        for chunk in chunks(file.path):
            total += len(chunk) - chunk.count(0)
            if total >= MIN_BYTES:
                return
    raise too_little(total)


def too_little(num_bytes: int) -> LLMZipError:
    """Returns the error for a text of so few bytes."""
    return LLMZipError(f"the text has {num_bytes:,} bytes; at least {MIN_BYTES:,} are needed to train on")


def _walk(top: Path, without: Path | None) -> Iterator[Path]:
    """Yields the files below a directory in the order of names, without hidden ones and archives."""
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
    """Whether few of the first bytes are control characters or not valid UTF-8."""
    try:
        probe = next(_chunks(path), b"")[:_PROBE_BYTES]
    except _UNREADABLE:
        return False
    controls = len(probe) - len(probe.translate(None, _CONTROL))
    wrong = len(probe.decode("utf-8", "ignore").encode()) < (1 - _MAX_CONTROL_SHARE) * len(probe) - 3
    return bool(probe) and not wrong and max(controls, probe.count(0)) <= _MAX_CONTROL_SHARE * len(probe)


def chunks(path: Path) -> Iterator[bytes]:
    """Reads a file in parts, decompressed if its suffix is .xz, .gz or .zst.

    Raises:
        LLMZipError: it cannot be read; names the file.
    """
    try:
        yield from _chunks(path)
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LLMZipError(f"{path}: cannot be read: {reason}") from None


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        stream: BinaryIO = file
        if path.suffix == ".zst":
            yield from _zstd_chunks(file)
            return
        if path.suffix == ".xz":
            stream = cast(BinaryIO, lzma.LZMAFile(file))  # noqa: SIM115 - closed with the file
        elif path.suffix == ".gz":
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=file))
        while data := stream.read(_READ_BYTES):
            yield data


def _zstd_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Reads all frames of a zstd file; zstandard's own reader takes a frame that ends too early for a whole one."""
    context = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
    frame = None
    while data := file.read(_ZSTD_READ_BYTES):
        while data:
            frame = frame or context.decompressobj()
            if text := frame.decompress(data):
                yield text
            data = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")


def blocks(path: Path, size: int) -> Iterator[Block]:
    """Reads the documents of a file, cut into blocks of about `size` bytes, at ends of lines if there are any near.

    Args:
        path: of the file.
        size: bytes of a block, which holds less than twice as many.

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
    """Cuts what is left of a document into blocks; `begins` says whether the document begins here."""
    start = 0
    while len(document) - start >= 2 * size:
        end = start + _line_end(document[start : start + 2 * size], size)
        yield Block(document[start:end], begins)
        start, begins = end, False
    if start < len(document):
        yield Block(document[start:], begins)


def _line_end(data: bytes, size: int) -> int:
    """Returns a place to cut, from `size` on and below twice that: after a line, else not inside a UTF-8 sequence."""
    newline = data.find(b"\n", size - 1, 2 * size - 1)
    if newline >= 0:
        return newline + 1
    end = size
    while end < min(size + 3, len(data) - 1) and data[end] & 0xC0 == 0x80:
        end += 1
    return end
