"""Inputs and outputs on disk. Must not know click, compression, terminals or the archive format.

A file that is being written has a temporary name in the folder of its final name, and is renamed when it is complete
and on the disk. So whatever happens, including kill -9 and a power cut, no half-written file gets the final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from . import forks
from .filenames import FileProblem, named_descriptor
from .streams import DescriptorReader, DescriptorWriter
from .unfinished import open_unfinished

_COPY_BYTES = 1 << 20  # 1 MiB, read at a time
_PERMISSIONS = 0o777  # never copy setuid, setgid or sticky: they were granted to other content
_BINARY = getattr(os, "O_BINARY", 0)  # only Windows has it, and changes line ends in files opened without it

# Temporary files that exist now. Signal handlers have no other way to know them, hence a global.
_unfinished: set[str] = set()
forks.in_child(_unfinished.clear)  # they are the parent's


# -- input -----------------------------------------------------------------------------------------------------------


def hash_file(path: Path, sha: hashlib._Hash) -> str:
    """Hashes the content of a file after what `sha` has been given already; returns the hash in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        while data := file.read(_COPY_BYTES):
            sha.update(data)
    return sha.hexdigest()


@dataclass(frozen=True)
class Source:
    """An open input.

    Attributes:
        name: the name the user gave; None for standard input.
        file: the buffered file, at its first byte.
        status: the status of the open file, which may not be that of the name.
    """

    name: str | None
    file: BinaryIO
    status: os.stat_result

    @property
    def size_bytes(self) -> int | None:
        """The number of bytes still to read; None if it cannot be known."""
        if not stat.S_ISREG(self.status.st_mode):
            return None
        return max(0, self.status.st_size - self.file.tell())

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def open_source(name: str | None, *, special: bool = True, force: bool = False, removing: bool = False) -> Source:
    """Opens an input.

    Args:
        name: the file's name; None for standard input.
        special: accept devices and FIFOs, including process substitutions.
        force: with `removing`, accept links and files with special modes.
        removing: the caller will remove the file afterwards.

    Raises:
        FileProblem: the input is of a kind that is refused.
        OSError: the input cannot be opened.
    """
    number = 0 if name is None else named_descriptor(name)
    if number == 0:
        return Source(None, _reader(0, closefd=False), os.fstat(0))
    if number == 1:
        raise FileProblem("is standard output, which is not read")
    assert name is not None
    _check_source(os.stat(name), special)  # before opening: opening a FIFO would wait for a writer
    if removing:
        _check_removable(os.lstat(name), force)
    if number is not None and not stat.S_ISREG(os.fstat(number).st_mode):
        descriptor = os.dup(number)  # a socket, for example, cannot be opened by name
    else:
        descriptor = os.open(name, os.O_RDONLY | _BINARY | getattr(os, "O_NOCTTY", 0))
    try:
        status = os.fstat(descriptor)
        _check_source(status, special)  # again: the name may belong to another file by now
        return Source(name, _reader(descriptor), status)
    except BaseException:
        os.close(descriptor)
        raise


def _reader(descriptor: int, *, closefd: bool = True) -> BinaryIO:
    return io.BufferedReader(DescriptorReader(descriptor, closefd=closefd))


def seekable_source(name: str | None) -> Source:
    """Opens an input whose file can seek and begins at 0; copies a pipe into an unnamed temporary file first.

    Raises:
        FileProblem: the input is of a kind that is refused, or there is no room for a pipe's content.
        OSError: the input cannot be opened or read.
    """
    source = open_source(name)
    if source.file.seekable() and stat.S_ISREG(source.status.st_mode) and source.file.tell() == 0:
        return source
    with source:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the source
        try:
            while data := source.file.read(_COPY_BYTES):
                try:
                    copy.write(data)
                    copy.flush()
                except OSError as error:
                    folder = f"{tempfile.gettempdir()} (TMPDIR)"
                    raise FileProblem(f"cannot be copied into {folder} for random access: {error.strerror}") from error
            copy.seek(0)
            return replace(source, file=cast("BinaryIO", copy), status=os.fstat(copy.fileno()))
        except BaseException:
            copy.close()
            raise


def _check_source(status: os.stat_result, special: bool) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise FileProblem("is a directory; name the files in it, or pack it with tar -I llmzip")
    if not stat.S_ISREG(status.st_mode) and not special:
        raise FileProblem("is not a regular file; name its output with -c or -o FILE, or use -f")


def _check_removable(link: os.stat_result, force: bool) -> None:
    """Refuses files whose removal would lose more than their content: other names, or rights the new file lacks."""
    if not stat.S_ISLNK(link.st_mode) and not stat.S_ISREG(link.st_mode):
        raise FileProblem("is not a regular file, and --rm removes only those")
    if force:
        return
    if stat.S_ISLNK(link.st_mode):
        raise FileProblem("is a symbolic link; use it without --rm, or with -f to remove the link")
    if link.st_nlink > 1:
        raise FileProblem(f"has {link.st_nlink - 1} other hard links; use it without --rm, or with -f")
    if link.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
        raise FileProblem("has the setuid, setgid or sticky bit; use it without --rm, or with -f")


def remove_source(source: Source) -> None:
    """Removes an input by its name, if that is still the file that was read, and unchanged.

    Raises:
        FileProblem: the file has changed or was replaced; it is kept.
    """
    if source.name is None:
        return
    now = os.stat(source.name)
    before = source.status
    if not os.path.samestat(now, before):
        raise FileProblem("was replaced while it was read; it is kept")
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise FileProblem("changed while it was read; it is kept")
    os.unlink(source.name)


# -- output ----------------------------------------------------------------------------------------------------------


class Output:
    """An output file. `sink` takes the bytes; `finish`, then `publish` give the file its name.

    Args:
        name: the final name.
        source: the input, which is refused as output.
        force: replace a file of that name; write into a device.
        temporary: name of the file until it is complete, whose remains of an earlier run are removed; the caller makes
            sure that no other process uses it. None for a name that nothing else has.
        unfinished: the same for a file that stays there if the work is interrupted, and that is written over from its
            beginning, byte by byte; None for a file that goes away.

    Attributes:
        sink: writes into the file.
        is_special: whether the name is a descriptor, FIFO or device, which is written directly.

    Raises:
        FileProblem: the name is taken.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        *,
        force: bool = False,
        temporary: str | None = None,
        unfinished: str | None = None,
    ) -> None:
        self.name = name
        self._force, self._unfinished = force, unfinished
        self._temporary: str | None = None
        number = named_descriptor(name)
        self.is_special = number is not None
        if number is not None:
            if unfinished is not None:
                raise FileProblem("is no file with a name, so nothing can be continued there")
            self._descriptor = os.dup(number)
        elif self._is_device(source):
            self.is_special = True
            if unfinished is not None:
                raise FileProblem("is not a regular file, so nothing can be continued there")
            self._descriptor = os.open(name, os.O_WRONLY | _BINARY | getattr(os, "O_NOCTTY", 0))
        elif unfinished is not None:
            self._descriptor = open_unfinished(unfinished)
            self._temporary = unfinished
        else:
            self._descriptor = self._open_temporary(temporary)
        self.sink = DescriptorWriter(self._descriptor)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()

    def _is_device(self, source: Source) -> bool:
        """Whether the name is a device or FIFO.

        Raises:
            FileProblem: the name is taken.
        """
        try:
            status = os.stat(self.name)
        except FileNotFoundError:
            if not os.path.lexists(self.name):
                return False
            status = os.lstat(self.name)  # a dangling link: the name is taken
        if os.path.samestat(status, source.status):
            raise FileProblem(SAME_FILE)
        if stat.S_ISDIR(status.st_mode):
            raise FileProblem("is a directory; use another name with -o FILE")
        is_special = not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode)
        is_harmless = stat.S_ISFIFO(status.st_mode) or self.name == os.devnull
        if not self._force and not is_harmless:
            raise FileProblem("is a device; use -f to write into it" if is_special else _EXISTS)
        return is_special

    def _open_temporary(self, fixed: str | None) -> int:
        folder = os.path.dirname(self.name)
        if fixed is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fixed)
        while True:
            name = fixed or os.path.join(folder, f".llmzip-{os.urandom(8).hex()}.tmp")
            _unfinished.add(name)  # before it exists: a signal may come right after
            try:
                # 0600 until the end: nobody may read here what the source's mode denies them. Readable by this
                # process, because --rm reads the file back before it removes the source.
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY | getattr(os, "O_NOFOLLOW", 0)
                descriptor = os.open(name, flags, 0o600)
            except BaseException as error:
                _unfinished.discard(name)
                if isinstance(error, FileExistsError) and fixed is None:
                    continue
                raise
            self._temporary = name
            return descriptor

    def finish(self, source: Source) -> None:
        """Copies the source's attributes, syncs and closes the file. If the close fails, the file has failed."""
        descriptor = self._descriptor
        if self._temporary is not None:
            if self._unfinished is not None:
                os.ftruncate(descriptor, self.sink.num_bytes)  # an earlier run may have left more
            if source.name is None:
                _set_mode(descriptor, self._temporary, 0o666 & ~_umask())
            else:
                _copy_owner_and_mode(source.status, descriptor, self._temporary)
            os.fsync(descriptor)
        self._descriptor = -1
        os.close(descriptor)
        if self._temporary is not None and source.name is not None:
            # Only now, because closing may set the times on network file systems.
            os.utime(self._temporary, ns=(source.status.st_atime_ns, source.status.st_mtime_ns))

    def reopen(self) -> BinaryIO:
        """Opens the finished content before it is published, to verify it."""
        return open(self._temporary or self.name, "rb")

    def publish(self) -> None:
        """Gives the finished file its final name.

        Raises:
            FileProblem: without `force`, a file of that name has appeared in the meantime; it is left unchanged.
        """
        temporary = self._temporary
        if temporary is None:
            return
        if self._force:
            os.replace(temporary, self.name)
        else:
            _rename_without_replacing(temporary, self.name)
        self._temporary = None
        _unfinished.discard(temporary)
        sync_folder(os.path.dirname(self.name) or ".")

    def discard(self) -> None:
        """Removes an unpublished file, unless it is meant to stay; does nothing after `publish`."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        if self._temporary in _unfinished:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            _unfinished.discard(self._temporary)
            self._temporary = None
        elif self._temporary is not None:
            with contextlib.suppress(OSError):
                if not os.stat(self._temporary).st_size:
                    os.unlink(self._temporary)  # nothing is done that could be continued
            self._temporary = None


@contextlib.contextmanager
def new_file(name: str, *, force: bool) -> Iterator[DescriptorWriter]:
    """Opens a new file that has no source for writing; it has a temporary name until it is complete.

    Raises:
        FileProblem: the name is taken.
    """
    source = Source(None, io.BytesIO(), os.stat(os.devnull))  # the file gets the mode of any new file
    with Output(name, source, force=force) as output:
        yield output.sink
        output.finish(source)
        output.publish()


SAME_FILE = "the output is the same file as the input; use another name with -o FILE"
_EXISTS = "exists; use -f to overwrite it"


def _umask() -> int:
    mask = os.umask(0o077)  # Python cannot read it without setting it
    os.umask(mask)
    return mask


def _set_mode(descriptor: int, name: str, mode: int) -> None:
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
    else:
        os.chmod(name, mode)


def _copy_owner_and_mode(status: os.stat_result, descriptor: int, name: str) -> None:
    mode = status.st_mode & _PERMISSIONS
    if hasattr(os, "fchown"):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, status.st_uid, -1)
        try:
            os.fchown(descriptor, -1, status.st_gid)
        except OSError:
            mode = mode_without_group(mode)
    with contextlib.suppress(PermissionError):  # some mounts have fixed modes; 0600, as it is now, is safe
        _set_mode(descriptor, name, mode)


def mode_without_group(mode: int) -> int:
    """Returns the mode of a copy whose group is not its source's, so that nobody gains a right.

    Members of the copy's group were others to the source, and members of the source's group are others to the copy. So
    both get only the rights that the source's group and others share.
    """
    group, others = mode >> 3 & 7, mode & 7
    return mode & 0o700 | (group & others) << 3 | group & others


def _rename_without_replacing(temporary: str, name: str) -> None:
    """Renames, unless the new name exists. A hard link is the one portable call that does so in one step."""
    try:
        os.link(temporary, name)
    except FileExistsError:
        raise FileProblem(_EXISTS) from None
    except OSError:  # a file system without hard links
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            raise FileProblem(_EXISTS) from None
        try:
            os.replace(temporary, name)
        except BaseException:
            os.unlink(name)  # the empty placeholder made above
            raise
    else:
        os.unlink(temporary)


def sync_folder(folder: str) -> None:
    """Syncs a folder, so that a new name survives a power cut. Where that fails, the file itself is synced anyway."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def unfinished(name: str) -> Iterator[None]:
    """Makes `remove_unfinished` remove a temporary file or folder, too, as long as the context lasts."""
    _unfinished.add(name)
    try:
        yield
    finally:
        _unfinished.discard(name)


def remove_unfinished() -> None:
    """Removes all temporary files and folders of this process."""
    for name in list(_unfinished):
        with contextlib.suppress(OSError):
            if os.path.isdir(name):
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)
        _unfinished.discard(name)
