"""Names of files: suffixes, streams by other names, names of one file, what a run must not replace; opens nothing."""

from __future__ import annotations

import contextlib
import os
import stat

_MAX_LINKS = 40  # as the kernel follows


class FileProblem(Exception):
    """A reason to leave a file alone, in one line that says what to do."""


# -- names -----------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """The text with everything masked that could steer a terminal or break a line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def add_suffix(name: str, suffix: str) -> str:
    """The name of the archive of a file.

    Raises:
        FileProblem: the name has the suffix already.
    """
    if has_suffix(name, suffix):
        raise FileProblem(f"already has the suffix {suffix}, skipped; to compress it again use -c or -o FILE")
    return name + suffix


def strip_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    """The name of the file in an archive.

    Raises:
        FileProblem: the name ends in none of the suffixes.
    """
    for suffix in suffixes:
        if has_suffix(name, suffix):
            return name[: -len(suffix)]
    raise FileProblem(f"cannot derive the output name without the suffix {suffixes[0]}; use -o FILE or -c")


def has_suffix(name: str, suffix: str) -> bool:
    """Whether a name ends in the suffix; a name that is nothing but the suffix does not count."""
    return name.endswith(suffix) and os.path.basename(name) != suffix


def named_descriptor(name: str) -> int | None:
    """The open descriptor that a name stands for, such as 1 for /dev/stdout, /dev/fd/1 and /proc/self/fd/1; else None.

    Such a name must never be opened as if it were a file's: what lies behind the standard descriptors changes while the
    program runs (`process.standard_output`), and replacing the name would replace the device itself.
    """
    folders = {os.path.realpath(folder) for folder in ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")}
    for _ in range(_MAX_LINKS):
        folder, last = os.path.split(name)
        folder = os.path.realpath(folder or ".")
        if folder in folders:
            return int(last) if last.isascii() and last.isdigit() else None
        try:
            name = os.path.join(folder, os.readlink(os.path.join(folder, last)))
        except OSError:  # no link
            return None
    return None


def input_name(argument: str) -> str | None:
    """The name of an input as the command line has it; None for the standard input, which is - or a name like
    /dev/stdin."""
    return None if argument == "-" or named_descriptor(argument) == 0 else argument


def is_input(name: str, argument: str) -> bool:
    """Whether a name stands for the regular file that is an input, as the command line has it."""
    source = input_name(argument)
    return is_same_file(name, 0 if source is None else source)


def is_same_file(name: str, other: str | int) -> bool:
    """Whether a name stands for the same regular file as another name, or as a descriptor.

    Files need not be there yet. Devices and FIFOs are never the same: nothing in them can be spoilt.
    """
    try:
        status = os.stat(name)
        return stat.S_ISREG(status.st_mode) and os.path.samestat(status, os.stat(other))
    except OSError:
        return isinstance(other, str) and os.path.realpath(name) == os.path.realpath(other)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class Reserved:
    """The files that one run reads or has written, which no output of the same run may replace."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], tuple[str, tuple[int, int] | None]] = {}

    def add(self, name: str, role: str, made_from: os.stat_result | None = None) -> None:
        """Reserves the regular file of that name, if there is one.

        Args:
            name: of the file.
            role: what it is in this run, for the message, like "also an input".
            made_from: of an output, the status of its input.
        """
        with contextlib.suppress(OSError):
            status = os.stat(name)
            if stat.S_ISREG(status.st_mode):
                self._files[_identity(status)] = role, None if made_from is None else _identity(made_from)

    def check(self, name: str, source: os.stat_result) -> None:
        """Refuses a name of a reserved file, unless it was made from the same input: nothing is lost then.

        Args:
            name: of an output.
            source: the status of its input.

        Raises:
            FileProblem: saying what the file is.
        """
        try:
            status = os.stat(name)
        except OSError:  # nothing is lost under that name
            return
        role, made_from = self._files.get(_identity(status), (None, None))
        if role is not None and made_from != _identity(source):
            raise FileProblem(f"is {role}; use another name for the output")
