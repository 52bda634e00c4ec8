"""Reads lists of file names, as often as needed, one name at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..system.filenames import FileProblem, input_name
from ..system.fileops import seekable_source

_MAX_NAME_BYTES = 64 * 1024  # no file system and no object store has longer names
_READ_BYTES = 64 * 1024  # read at a time; a list of short names takes many times its size in memory
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class FileList:
    """A list of names: one on a line, or separated by NUL characters if it has any. Empty names are left out.

    Line ends may be those of Windows. Names that are not UTF-8 have surrogate escapes, as from `os.fsdecode`. A list
    that cannot seek, such as standard input or a process substitution, is copied into a temporary file.

    Args:
        name: the list's name; "-" is standard input.

    Raises:
        FileProblem: the list is of a kind that is not read.
        OSError: the list cannot be read.
    """

    def __init__(self, name: str) -> None:
        self._source = seekable_source(input_name(name))
        self._separator = b"\n"
        self._begin = 0
        file = self._source.file
        try:
            data = file.read(_READ_BYTES)
            self._begin = len(_BYTE_ORDER_MARK) if data.startswith(_BYTE_ORDER_MARK) else 0
            while data and b"\0" not in data:
                data = file.read(_READ_BYTES)
        except BaseException:
            file.close()
            raise
        if data:
            self._separator = b"\0"

    def __iter__(self) -> Iterator[str]:
        """Yields the names from the first on.

        Raises:
            FileProblem: a name is longer than 64 KiB.
        """
        file = self._source.file
        file.seek(self._begin)
        rest = b""
        while data := file.read(_READ_BYTES):
            *lines, rest = (rest + data).split(self._separator)
            for line in lines:
                yield from self._name(line)
            if len(rest) > _MAX_NAME_BYTES:
                break
        yield from self._name(rest)

    def _name(self, line: bytes) -> Iterator[str]:
        if len(line) > _MAX_NAME_BYTES:
            raise FileProblem(f"is not a list of names: one would be longer than {_MAX_NAME_BYTES // 1024} KiB")
        if self._separator == b"\n":
            line = line.removesuffix(b"\r")
        if line:
            yield os.fsdecode(line)

    def close(self) -> None:
        """Closes the list."""
        self._source.file.close()
