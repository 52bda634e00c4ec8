"""The interface of stores: objects with names under one root. Knows no file system, protocol or library."""

from __future__ import annotations

import abc
import contextlib
import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

READ_AHEAD_BYTES = 1 << 20  # 1 MiB: read beyond what was asked for
RUN_FOLDER = "_llmzip"
"""Name of the folder for what a run keeps beside its outputs; listings of inputs leave it out."""

_PASSWORD = re.compile(r"^([A-Za-z0-9+.-]+://[^/@:]*):[^/]*@")
_TEMPORARY = re.compile(r"\.llmzip-[0-9a-f]{16}\.tmp")


def is_temporary(name: str) -> bool:
    """Whether the last part of a name is that of an object that was being written, locally or on a file server."""
    return _TEMPORARY.fullmatch(name.rpartition("/")[2]) is not None


@dataclass(frozen=True)
class Stat:
    """What is known about an object without reading it.

    Attributes:
        size_bytes: its size in bytes.
        etag: a text that changes when the object does; "" if the store knows nothing of the kind. All machines see the
            same text: it never has anything from one node's view, such as inode numbers.
    """

    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Entry:
    """One name in a folder.

    Attributes:
        name: the name in the store.
        is_folder: whether it is a folder; links to folders are not listed at all.
        stat: size and etag of a file; None for a folder, and if `error` is not None.
        error: why nothing is known about the file, or why a folder has something that cannot be listed.
    """

    name: str
    is_folder: bool
    stat: Stat | None = None
    error: OSError | None = None


class Store(abc.ABC):
    """Objects with names under one root: a local folder, a bucket, a folder on a server. Can be pickled.

    Names are relative to the root, with "/" between their parts and no "." or "..". Names that are not UTF-8 have
    surrogate escapes, as from `os.fsdecode`.

    All methods raise OSError with an error number, a reason on one line and the object's URI as the file name.

    Args:
        uri: the root as a URI, or as an absolute path if the store is local.

    Attributes:
        uri: as given.
        is_local: whether the root is a folder of this machine's file system (which may be a network's).
        is_shared: whether other processes see the same objects.
    """

    is_local = False
    is_shared = True

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri_of('')!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Store) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def uri_of(self, name: str) -> str:
        """Returns the URI, without a password, or the absolute local path of a name; "" is the root."""
        return join(self.uri, name)

    @abc.abstractmethod
    def stat(self, name: str) -> Stat | None:
        """Returns size and etag; None if there is no object of that name, or only a folder or device."""

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name. Folders are not objects."""
        return self.stat(name) is not None

    @abc.abstractmethod
    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name; "" is the root."""

    @abc.abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Opens an object for reading.

        Returns:
            a file that can seek, and reads about READ_AHEAD_BYTES beyond what is asked for.
        """

    @abc.abstractmethod
    def read(self, name: str, begin: int, end: int) -> bytes:
        """Returns the bytes from `begin` (inclusive) to `end` (exclusive); fewer if the object ends before."""

    def read_all(self, name: str) -> bytes:
        """Returns all bytes of an object, which must be known to be small."""
        with self.open(name) as file:
            return file.read()

    @abc.abstractmethod
    def create(self, name: str, *, size_bytes: int = 0) -> contextlib.AbstractContextManager[BinaryIO]:
        """Makes an object that appears whole or not at all, and replaces an older one of that name.

        Nothing of the object can be seen before the block ends. If it ends with an exception, or if the object cannot
        be completed, there is no new object, and an older one of that name is left as it was.

        Args:
            name: the object's name; folders above it are made.
            size_bytes: about how large the object will be. Needed only for objects above 100 GB in an object store,
                where an upload has 10,000 parts at most.

        Returns:
            a context manager that yields the file to write to. It has `write` and `tell`, but cannot seek.
        """

    def write(self, name: str, data: bytes) -> None:
        """Makes an object of these bytes, whole or not at all."""
        with self.create(name, size_bytes=len(data)) as sink:
            sink.write(data)

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """Removes an object, if there is one."""

    @abc.abstractmethod
    def remove_tree(self, name: str) -> None:
        """Removes a folder with everything in it, if there is one. The root is refused.

        Whoever creates an object there at the same time may get a FileNotFoundError, or be quicker: then the object
        may stay.
        """

    @abc.abstractmethod
    def entries(self, folder: str) -> Iterator[Entry]:
        """Lists one folder; "" is the root.

        Local folders come as a stream, sorted in runs of 10,000 names; others are sorted as a whole. Links to folders,
        devices, FIFOs and sockets are left out, and so are temporary names.

        Raises:
            OSError: the folder does not exist or cannot be listed.
        """

    def names(self, folder: str) -> Iterator[str]:
        """Yields the names, from the store's root, of the objects right in a folder; none if it does not exist."""
        try:
            for entry in self.entries(folder):
                if entry.stat is not None:
                    yield entry.name
        except FileNotFoundError:
            return

    def remove_leftovers(self, folder: str, *, min_age_s: float) -> int:
        """Removes temporary objects that killed processes left in a folder and below; on S3, unfinished uploads.

        Args:
            folder: where to look; "" is the root.
            min_age_s: age in seconds from which on a temporary object counts as left over: since its last write, on
                S3 since the upload began. It must be longer than the longest upload.

        Returns:
            the number of objects removed.
        """
        return 0


def join(root: str, name: str) -> str:
    """Returns root and name with one "/" between them."""
    if not name:
        return root
    return root + name if not root or root.endswith("/") else f"{root}/{name}"


def without_password(uri: str) -> str:
    """Returns a URI as it may be printed: sftp://user:***@host/path."""
    return _PASSWORD.sub(r"\1:***@", uri)


def checked(name: str, uri: str) -> str:
    """Returns a name that stays below its root.

    Raises:
        OSError: it does not, or is empty.
    """
    parts = name.split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in name:
        raise OSError(errno.EINVAL, f"not a name of an object: {name!r}", uri)
    return name


def checked_folder(name: str, uri: str) -> str:
    """Returns the name of a folder, which may be "", the root; raises OSError as `checked` does."""
    return checked(name, uri) if name else name
