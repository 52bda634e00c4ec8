"""Turns the inputs that a command names into a stream of files. Reads none of them, and never holds all their names.

Inputs are files, folders, patterns, and URIs of all of these. Each file gets a name relative to the deepest folder
that holds all inputs, which is also its output's name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from ..errors import LLMZipError
from ..system.filenames import FileProblem
from .filelists import FileList
from .patterns import Pattern, has_magic
from .places import Place, parse_place, shared_place
from .storage import RUN_FOLDER, Stat, Store, open_store, split_uri, with_retries, without_password

_QUICKER_IN_THREADS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
"""Protocols whose answers take milliseconds, and whose libraries can be used by many threads."""

_NUM_LOOKUPS = 32  # at a time

Wanted = Callable[[str], bool]
"""Whether a command takes a file inside a folder, by its name."""


@dataclass(frozen=True)
class SourceFile:
    """An input.

    Attributes:
        path: its URI, without a password, or its absolute local path.
        name: its name relative to the common folder, with "/" and without "..": `Sources.store` opens it.
        size_bytes: its size in bytes.
        etag: a text that changes when the file does; see `stores.Stat`.
    """

    path: str
    name: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class SourceProblem:
    """An input that cannot be used; the others can.

    Attributes:
        path: the argument as given, or the URI or path of what was found in a folder.
        error: why: it is missing, its folder cannot be listed, no file matches, or it is not a regular file.
    """

    path: str
    error: OSError | FileProblem


@dataclass(frozen=True)
class _Argument:
    """An argument whose kind is known.

    Attributes:
        text: the argument as given.
        place: what it names; a pattern's literal folder.
        known: size and etag, if it names a file.
        pattern: the rest of a pattern.
        is_folder: whether it names a folder.
        problem: why the argument cannot be used, if it is none of these.
    """

    text: str
    place: Place | None
    known: Stat | None = None
    pattern: Pattern | None = None
    is_folder: bool = False
    problem: OSError | FileProblem | None = None

    @property
    def folder(self) -> Place | None:
        """The folder that the argument's files are in."""
        return self.place if self.place is None or self.is_folder or self.pattern is not None else self.place.folder


class Sources:
    """The inputs of a run: an iterable of files and problems, which lists the folders anew each time.

    Use it as a context manager: a list of files stays open until `close`.

    A file that is named twice in a row comes once. One that is named twice otherwise, or that is also in a folder that
    is named, comes twice, with the same name each time; `run.gather` drops the second one.

    Args:
        arguments: files, folders, patterns and URIs. A pattern counts only if no file or folder has its text as its
            name; it matches as in shells (* does not match a leading dot), and ** stands for folders of any depth.
        filelist: name of a list of files and folders, without patterns; "-" is standard input. See `FileList`. For
            the common folder, all its names count as files'.
        wanted: whether the command takes a file that is in a named folder, or that matches a pattern which ends in a
            wildcard. A file that is named, or whose ending is, always comes.

    Attributes:
        store: the deepest folder that holds all inputs: the folder itself if one is named, a file's folder, or the
            folder before a pattern's first wildcard. Missing files count, so that it does not depend on them.

    Raises:
        LLMZipError: the inputs are in different file systems, none can be used, or a package is missing.
        FileProblem, OSError: the list of files cannot be read.
    """

    def __init__(
        self, arguments: Iterable[str], *, filelist: str | None = None, wanted: Wanted = lambda name: True
    ) -> None:
        self._wanted = wanted
        self._arguments = [_classified(text) for text in arguments]
        self._listed = None if filelist is None else FileList(filelist)
        try:
            common: Place | None = None
            for folder in self._folders():
                common = shared_place(common, folder)
            if common is None:
                for argument in self._arguments:
                    raise LLMZipError(f"{without_password(argument.text)}: {argument.problem}")
                raise LLMZipError("no input files are named")
        except BaseException:
            self.close()
            raise
        self._root = common
        self.store = open_store(common.uri)

    @property
    def may_repeat(self) -> bool:
        """Whether a file may come twice: no folder or pattern alone has one twice."""
        return self._listed is not None or len(self._arguments) > 1

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _folders(self) -> Iterator[Place]:
        for argument in self._arguments:
            if argument.folder is not None:
                yield argument.folder
        for text in self._listed or ():
            try:
                yield parse_place(text).folder
            except FileProblem:
                continue  # reported when the inputs are iterated

    def __iter__(self) -> Iterator[SourceFile | SourceProblem]:
        previous = None
        for found in self._all():
            if isinstance(found, SourceProblem) or found.path != previous:
                yield found
            previous = found.path

    def _all(self) -> Iterator[SourceFile | SourceProblem]:
        for argument in self._arguments:
            yield from self._of_argument(argument)
        if self._listed is None:
            return
        if self._root.protocol not in _QUICKER_IN_THREADS:
            for text in self._listed:
                yield from self._of_argument(self._of_listed(text))
            return
        names = iter(self._listed)
        with ThreadPoolExecutor(_NUM_LOOKUPS) as pool:
            while batch := list(islice(names, _NUM_LOOKUPS * 8)):
                for argument in pool.map(self._of_listed, batch):
                    yield from self._of_argument(argument)

    def _of_listed(self, text: str) -> _Argument:
        """Returns what a name in the list of files is."""
        try:
            place = parse_place(text)
        except FileProblem as error:
            return _Argument(text, None, problem=error)
        name = place.below(self._root)
        if name is None:
            return _Argument(text, None, problem=FileProblem("is not where the list said before: the list has changed"))
        return _looked_up(text, place, self.store, name)

    def _of_argument(self, argument: _Argument) -> Iterator[SourceFile | SourceProblem]:
        if argument.problem is not None:
            yield SourceProblem(without_password(argument.text), argument.problem)
            return
        name = None if argument.place is None else argument.place.below(self._root)
        assert name is not None  # the root was made from these places
        if argument.known is not None:
            yield self._source(name, argument.known)
            return
        is_empty = True
        for found in self._walk(name, argument.pattern):
            is_empty = False
            yield found
        if is_empty:
            reason = "no file matches" if argument.pattern is not None else "has no files that this command takes"
            yield SourceProblem(without_password(argument.text), FileProblem(reason))

    def _source(self, name: str, known: Stat) -> SourceFile:
        return SourceFile(self.store.uri_of(name), name, known.size_bytes, known.etag)

    def _walk(self, folder: str, pattern: Pattern | None) -> Iterator[SourceFile | SourceProblem]:
        """Yields the files in a folder and below that are wanted and, with a pattern, match it or are in a match."""
        # The folders that are open now, and where in the pattern their names are; None if all below is taken.
        opened = [(folder, self.store.entries(folder), None if pattern is None else pattern.start)]
        while opened:
            folder, entries, states = opened[-1]
            try:
                entry = next(entries, None)
            except OSError as error:
                yield SourceProblem(self.store.uri_of(folder), error)
                entry = None
            if entry is None:
                opened.pop()
                continue
            last = entry.name.rpartition("/")[2]
            if entry.is_folder and last == RUN_FOLDER:
                continue
            if entry.is_folder and entry.error is not None:
                yield SourceProblem(self.store.uri_of(entry.name), entry.error)
                continue
            is_taken, must_be_wanted = True, True
            if pattern is not None and states is not None:
                match = pattern.match(states, last, is_folder=entry.is_folder)
                is_taken, must_be_wanted = match.is_whole, pattern.is_open
                states = None if match.is_whole else match.states
            if entry.is_folder:
                if is_taken or states:
                    opened.append((entry.name, self.store.entries(entry.name), states))
            elif is_taken and (not must_be_wanted or self._wanted(entry.name)):
                if entry.stat is not None:
                    yield self._source(entry.name, entry.stat)
                elif entry.error is not None:
                    yield SourceProblem(self.store.uri_of(entry.name), entry.error)

    def close(self) -> None:
        """Closes the list of files, if there is one."""
        if self._listed is not None:
            self._listed.close()


def _classified(text: str) -> _Argument:
    """Returns what an argument of the command line is."""
    try:
        place = parse_place(text)
    except FileProblem as error:
        return _Argument(text, None, problem=error)
    folder = place.folder
    argument = _looked_up(text, place, open_store(folder.uri), place.below(folder) or "")
    if isinstance(argument.problem, FileNotFoundError) and has_magic(text):
        return _pattern(text)
    return argument


def _looked_up(text: str, place: Place, store: Store, name: str) -> _Argument:
    """Returns what a name in a store is: a file, a folder, or nothing that can be used."""
    try:
        known = with_retries(lambda: store.stat(name)) if name else None
        if known is not None:
            return _Argument(text, place, known=known)
        if with_retries(lambda: store.is_folder(name)):
            return _Argument(text, place, is_folder=True)
    except OSError as error:
        return _Argument(text, place, problem=error)
    if store.is_local and os.path.exists(place.uri):
        return _Argument(text, place, problem=FileProblem("is not a regular file"))
    return _Argument(text, place, problem=FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place.uri))


def _pattern(text: str) -> _Argument:
    """Splits a pattern before its first part with a wildcard."""
    _, tail = split_uri(text)
    head = text.removesuffix(tail)  # the protocol, with ://
    parts = tail.split("/")
    first = next(index for index, part in enumerate(parts) if has_magic(part))
    literal = "/".join(parts[:first]) + ("/" if first else "")
    wild = [part for part in parts[first:] if part not in ("", ".")]
    try:
        place = parse_place(head + literal or ".")
    except FileProblem as error:
        return _Argument(text, None, problem=error)
    if ".." in wild:
        return _Argument(text, None, problem=FileProblem("has .. after a wildcard"))
    return _Argument(text, place, pattern=Pattern(wild))
