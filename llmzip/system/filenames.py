"""Names of files: suffixes, names of streams, names of the same file, files a run must not replace. Opens nothing."""

from __future__ import annotations

import contextlib
import os
import stat

_MAX_LINKS = 40  # symbolic links in a row, as many as Linux follows


class FileProblem(Exception):
    """A reason to leave a file alone, in one line that says what to do."""


# -- names -----------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Returns the text with "?" for everything that could steer a terminal or break a line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def add_suffix(name: str, suffix: str) -> str:
    """Returns the name of a file's archive.

    Raises:
        FileProblem: the name already has the suffix.
    """
    if has_suffix(name, suffix):
        raise FileProblem(f"already has the suffix {suffix}, skipped; to compress it again use -c or -o FILE")
    return name + suffix


def strip_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    """Returns an archive's name without its suffix.

    Raises:
        FileProblem: the name ends in none of the suffixes.
    """
    for suffix in suffixes:
        if has_suffix(name, suffix):
            return name[: -len(suffix)]
    raise FileProblem(f"cannot derive the output name without the suffix {suffixes[0]}; use -o FILE or -c")


def existing_name(name: str, suffix: str) -> str:
    """Returns the name, or that of its archive where only the archive exists, as gunzip and zcat look for it."""
    archive = name + suffix
    return archive if not os.path.lexists(name) and os.path.lexists(archive) else name


def has_suffix(name: str, suffix: str) -> bool:
    """Whether a name ends in the suffix and is more than the suffix alone."""
    return name.endswith(suffix) and os.path.basename(name) != suffix


def named_descriptor(name: str) -> int | None:
    """Returns the open descriptor that a name stands for: 1 for /dev/stdout, /dev/fd/1 and /proc/self/fd/1; else None.

    Such a name must never be opened like a file's: the standard descriptors are redirected while the program runs
    (`process.standard_output`), and replacing the name would replace the device itself.
    """
    folders = {os.path.realpath(folder) for folder in ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")}
    for _ in range(_MAX_LINKS):
        folder, last = os.path.split(name)
        folder = os.path.realpath(folder or ".")
        if folder in folders:
            return int(last) if last.isascii() and last.isdigit() else None
        try:
            name = os.path.join(folder, os.readlink(os.path.join(folder, last)))
        except OSError:  # not a link
            return None
    return None


def input_name(argument: str) -> str | None:
    """Returns the name of an input from the command line; None for standard input, which is - or like /dev/stdin."""
    return None if argument == "-" or named_descriptor(argument) == 0 else argument


def is_input(name: str, argument: str) -> bool:
    """Whether a name stands for the regular file that is an input given on the command line."""
    input_or_none = input_name(argument)
    return is_same_file(name, 0 if input_or_none is None else input_or_none)


def is_same_file(name: str, other: str | int) -> bool:
    """Whether a name stands for the same regular file as another name, or as a descriptor.

    The files need not exist yet. Devices and FIFOs are never the same file: nothing in them can be overwritten.
    """
    try:
        status = os.stat(name)
        return stat.S_ISREG(status.st_mode) and os.path.samestat(status, os.stat(other))
    except OSError:
        return isinstance(other, str) and os.path.realpath(name) == os.path.realpath(other)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class Reserved:
    """The files that a run reads or has written, which no output of the same run may replace."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], tuple[str, tuple[int, int] | None]] = {}

    def add(self, name: str, role: str, made_from: os.stat_result | None = None) -> None:
        """Reserves the regular file of that name, if there is one.

        Args:
            name: the file's name.
            role: what the file is in this run, for the message, such as "also an input".
            made_from: the status of the input that an output was made from.
        """
        with contextlib.suppress(OSError):
            status = os.stat(name)
            if stat.S_ISREG(status.st_mode):
                self._files[_identity(status)] = role, None if made_from is None else _identity(made_from)

    def check(self, name: str, source: os.stat_result) -> None:
        """Refuses the name of a reserved file, unless it was made from the same input: then nothing is lost.

        Args:
            name: the output's name.
            source: the status of the output's input.

        Raises:
            FileProblem: the file is reserved; the message says what it is.
        """
        try:
            status = os.stat(name)
        except OSError:  # there is no file of that name to lose
            return
        role, made_from = self._files.get(_identity(status), (None, None))
        if role is not None and made_from != _identity(source):
            raise FileProblem(f"is {role}; use another name for the output")
