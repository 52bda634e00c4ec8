"""Which files a run has: names of the command line, of lists, and of folders. Opens no input."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import click

from ..system import filenames
from ..system.filenames import FileProblem
from .request import Mode, Request

MAX_LIST_BYTES = 1 << 28
"""Size of a list of names at most, 256 MiB: a device or a wrong file must not fill the memory."""


@dataclass(frozen=True)
class Selection:
    """The options that choose inputs.

    Attributes:
        recursive: whether folders stand for the files below them.
        filelist: files with names; "-" is the standard input.
        null: whether a NUL byte ends each name in a list, instead of a line feed.
        include: patterns of base names, one of which a file in a folder must match; empty for all files.
        exclude: patterns of base names of files and folders in folders, which are left out.
    """

    recursive: bool = False
    filelist: tuple[str, ...] = ()
    null: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def names(self, files: Sequence[str]) -> list[str]:
        """Returns the names of the command line, then those of the lists; "-" if there are neither names nor lists.

        Args:
            files: names of the command line.

        Raises:
            click.UsageError: options contradict each other, or a list is too large or has unexpected NUL bytes.
            click.FileError: a list cannot be read.
        """
        if (self.include or self.exclude) and not self.recursive:
            raise click.UsageError("--include and --exclude choose among the files of folders; they need -r")
        if self.null and not self.filelist:
            raise click.UsageError("-0 needs --filelist")
        if self.recursive and not files and not self.filelist:
            raise click.UsageError("-r needs the name of a folder")
        if [*files, *self.filelist].count("-") > 1 and "-" in self.filelist:
            raise click.UsageError("the standard input can be only one list or input")
        names = list(files)
        for name in self.filelist:
            names += _read_list(name, self.null)
        return names if self.filelist else names or ["-"]

    def accepts_file(self, name: str) -> bool:
        """Whether a file in a folder is wanted, by its base name."""
        return (not self.include or _matches(name, self.include)) and not _matches(name, self.exclude)

    def accepts_folder(self, name: str) -> bool:
        """Whether a folder in a folder is entered, by its base name."""
        return not _matches(name, self.exclude)


@dataclass
class Inputs:
    """The inputs of a run.

    Attributes:
        names: their names, in the order of the run.
        places: where the outputs of files in folders belong below --output-dir, by the inputs' names.
        problems: files and folders that cannot be inputs, each with the reason.
        remarks: names with a reason why they are left out, which is no failure.
    """

    names: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[str, Exception]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)


def gather(names: Sequence[str], selection: Selection, request: Request) -> Inputs:
    """Returns the inputs that names stand for; with -r, a folder stands for the regular files below it.

    Links in folders are not followed. Files of a folder come in the order of the bytes of their names. When
    compressing, those that have the suffix of archives are left out with a remark; otherwise only those are inputs.

    Args:
        names: names of files and folders; "-" is the standard input.
        selection: the options that choose inputs.
        request: what the user asked for.
    """
    inputs = Inputs()
    left_out = _identities(request.report, request.prompt_file)
    for name in names:
        if selection.recursive and name != "-" and os.path.isdir(name):
            num_before = len(inputs.names) + len(inputs.problems) + len(inputs.remarks)
            _gather_folder(name, selection, request, inputs, left_out)
            if num_before == len(inputs.names) + len(inputs.problems) + len(inputs.remarks):
                inputs.remarks.append((name, f"has no files to {request.mode.value}"))
        else:
            inputs.names.append(name)
    return inputs


def _gather_folder(
    folder: str, selection: Selection, request: Request, inputs: Inputs, left_out: set[tuple[int, int]]
) -> None:
    """Adds the files below a folder to the inputs."""
    above = os.path.basename(os.path.normpath(folder))
    above = "" if above in (os.curdir, os.pardir) else above
    for path, problem in _files_below(folder, selection):
        if problem is not None:
            inputs.problems.append((path, problem))
            continue
        is_archive = any(filenames.has_suffix(path, suffix) for suffix in request.suffixes)
        if is_archive and request.mode is Mode.COMPRESS:
            inputs.remarks.append((path, "is already an archive, skipped"))
        elif _is_unfinished(path, request.suffixes):
            continue
        elif is_archive or request.mode is Mode.COMPRESS:
            if left_out and _identities(path) & left_out:
                continue  # --report is written to, --prompt-file is needed to decompress
            inputs.names.append(path)
            inputs.places[path] = os.path.join(above, os.path.relpath(path, folder))


def _files_below(folder: str, selection: Selection) -> Iterator[tuple[str, Exception | None]]:
    """Yields the names of wanted regular files in order; what cannot be read, or is another kind, with the reason."""
    waiting = [folder]  # the next one last; the loop needs no deep stack for deep folders
    kinds: dict[str, bool] = {folder: True}
    while waiting:
        path = waiting.pop()
        if not kinds.pop(path):
            yield path, None
            continue
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=True)
        except OSError as error:
            yield path, error
            continue
        for entry in found:
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
            except OSError as error:
                if not isinstance(error, FileNotFoundError):  # removed meanwhile: not there to be compressed
                    yield entry.path, error
                continue
            if stat.S_ISDIR(mode):
                if not selection.accepts_folder(entry.name):
                    continue
            elif not selection.accepts_file(entry.name) or stat.S_ISLNK(mode):
                continue
            elif not stat.S_ISREG(mode):
                yield entry.path, FileProblem("is not a regular file, skipped")
                continue
            kinds[entry.path] = stat.S_ISDIR(mode)
            waiting.append(entry.path)


def _read_list(name: str, null: bool) -> list[str]:
    """Returns the names in a list; empty ones are left out, and "-" is a file of that name."""
    try:
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise click.FileError(name, error.strerror or str(error)) from error
    if len(data) > MAX_LIST_BYTES:
        raise click.UsageError(f"the list {name} is larger than {MAX_LIST_BYTES >> 20} MiB")
    if not null and b"\0" in data:
        raise click.UsageError(f"the list {name} has NUL bytes; if they end the names, use -0")
    names = (os.fsdecode(line) for line in data.split(b"\0" if null else b"\n") if line)
    return [os.path.join(os.curdir, line) if line == "-" else line for line in names]


def _identities(*names: str | None) -> set[tuple[int, int]]:
    """Returns what identifies those of the files that exist."""
    identities = set()
    for name in names:
        if name is not None and name != "-":
            with contextlib.suppress(OSError):
                status = os.stat(name)
                identities.add((status.st_dev, status.st_ino))
    return identities


def _is_unfinished(path: str, suffixes: Sequence[str]) -> bool:
    """Whether a name is that of an archive that a run with --resume will continue, or of its temporary file."""
    name = os.path.basename(path)
    return name.endswith(tuple(f"{suffix}.partial" for suffix in suffixes)) or (
        name.startswith(".llmzip-") and name.endswith(".tmp")
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
