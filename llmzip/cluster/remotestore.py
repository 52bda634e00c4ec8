"""Stores that fsspec reaches: buckets, the Hub, file servers, and memory in tests."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from ..errors import LLMZipError
from .faults import storage_error, translated
from .listings import is_s3_folder, listed_folder, stat_of, time_of
from .sinks import MultipartUpload, PartSink, PutUpload, RenameUpload, Upload, part_bytes
from .stores import READ_AHEAD_BYTES, Entry, Stat, Store, checked, checked_folder, is_temporary, join, without_password

_MULTIPART = frozenset({"s3", "s3a", "gs", "gcs"})
"""Protocols whose fsspec files complete an upload only when they are told to (autocommit=False)."""

_PUT = frozenset({"az", "abfs", "abfss", "hf", "oci", "ocilake", "oss", "tos", "tosfs"})
"""Protocols of object stores whose objects are put by one call. The files of adlfs delete an older object first."""

_READ_ONLY = frozenset({"http", "https", "github", "gist", "git", "data", "zip", "tar", "libarchive", "reference"})
"""Protocols that store nothing; fsspec would send a PUT request to any web server."""

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "hf": "huggingface_hub", "oci": "ocifs", "ocilake": "ocifs", "oss": "ossfs", "tos": "tosfs", "tosfs": "tosfs",
    "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol", "hdfs": "pyarrow", "webhdfs": "requests",
    "webdav": "webdav4", "http": "aiohttp", "https": "aiohttp",
}  # fmt: skip
"""Protocol -> the package that it needs besides fsspec."""

_REMOVED_AT_ONCE = 1_000  # as many as S3 removes by one request


class RemoteStore(Store):
    """Objects behind fsspec.

    Args:
        uri: the root, such as s3://bucket/prefix. Credentials are found as the protocol's library does: in the
            environment, in its configuration files, or from the machine's role.

    Raises:
        LLMZipError: fsspec or the protocol's package is missing, or the protocol is unknown.
        OSError: the URI is not valid.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(uri if uri.endswith("://") else uri.rstrip("/"))
        self._protocol = uri.partition("://")[0].lower()
        self._connected: tuple[int, Any] | None = None
        self._is_s3 = self._protocol in ("s3", "s3a")
        self.is_shared = self._protocol != "memory"
        kind = _file_system_class(self._protocol)
        with translated(without_password(uri)):
            self._options = kind._get_kwargs_from_urls(uri)
            self._root = str(kind._strip_protocol(self.uri)).rstrip("/")
        if self._protocol in _MULTIPART | _PUT:
            self._options["use_listings_cache"] = False  # another machine's object would stay invisible

    def uri_of(self, name: str) -> str:
        return without_password(super().uri_of(name))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_connected": None}

    @property
    def _fs(self) -> Any:
        # Connections do not survive a fork, so each process has its own.
        if self._connected is None or self._connected[0] != os.getpid():
            with translated(self.uri_of("")):
                self._connected = os.getpid(), _file_system_class(self._protocol)(**self._options)
        fs = self._connected[1]
        if self._protocol == "hf":
            fs.invalidate_cache()  # it caches in its own way
        return fs

    def _path(self, name: str) -> str:
        """Returns the path that fsspec knows a name by.

        Raises:
            OSError: the name is not UTF-8.
        """
        path = join(self._root, checked_folder(name, self.uri_of(name)))
        try:
            path.encode()
        except UnicodeEncodeError:
            readable = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise OSError(errno.EINVAL, "its name is not valid UTF-8, which this store requires", readable) from None
        return path

    def _object(self, name: str) -> str:
        return self._path(checked(name, self.uri_of(name)))

    def stat(self, name: str) -> Stat | None:
        path = self._object(name)
        try:
            with translated(self.uri_of(name)):
                details = self._fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return stat_of(details) if details.get("type") != "directory" else None

    def is_folder(self, name: str) -> bool:
        path = self._path(name)
        with translated(self.uri_of(name)):
            return is_s3_folder(self._fs, path) if self._is_s3 else bool(self._fs.isdir(path))

    def open(self, name: str) -> BinaryIO:
        path = self._object(name)
        with translated(self.uri_of(name)):
            if not self.is_shared:  # files of memory:// share one position among all readers
                return io.BytesIO(self._fs.cat_file(path))
            file = self._fs.open(path, "rb", block_size=READ_AHEAD_BYTES, cache_type="readahead")
        return io.BufferedReader(_Reader(file, self.uri_of(name)))

    def read(self, name: str, begin: int, end: int) -> bytes:
        path = self._object(name)
        if begin >= end:
            return b""
        try:
            with translated(self.uri_of(name)):
                return bytes(self._fs.cat_file(path, start=begin, end=end))
        except OSError as error:
            if error.errno != errno.EINVAL:  # what servers answer if the range begins after the end
                raise
            known = self.stat(name)
            if known is None or begin < known.size_bytes:
                raise
            return b""

    @contextlib.contextmanager
    def create(self, name: str, *, size_bytes: int = 0) -> Iterator[BinaryIO]:
        part = part_bytes(size_bytes)
        upload = self._upload(name, part)
        try:
            with PartSink(upload.send, part) as sink:
                yield cast("BinaryIO", sink)
                sink.finish()
            upload.complete()
        except BaseException:
            upload.abort()
            raise

    def _upload(self, name: str, part: int) -> Upload:
        fs, path, uri = self._fs, self._object(name), self.uri_of(name)
        if self._protocol in _READ_ONLY:
            raise OSError(errno.EROFS, f"{self._protocol}:// is read-only", uri)
        if self._protocol in _MULTIPART:
            return MultipartUpload(fs, path, uri, size_bytes=part)
        if not self.is_shared:
            return PutUpload(fs, path, uri, in_memory=True)
        if self._protocol in _PUT or not _renames(fs):
            return PutUpload(fs, path, uri)
        folder = path.rpartition("/")[0]
        return RenameUpload(fs, path, uri, temporary=f"{folder}/.llmzip-{os.urandom(8).hex()}.tmp")

    def remove(self, name: str) -> None:
        path = self._object(name)
        with contextlib.suppress(FileNotFoundError), translated(self.uri_of(name)):
            self._fs.rm_file(path)

    def remove_tree(self, name: str) -> None:
        path = self._object(name)
        batch: list[str] = []
        with translated(self.uri_of(name)):
            try:
                for _, _, files in self._fs.walk(path, detail=True, on_error="omit"):
                    for details in files.values():
                        batch.append(details["name"])
                        if len(batch) == _REMOVED_AT_ONCE:
                            self._remove_all(batch)
                            batch = []
                self._remove_all(batch)
            except FileNotFoundError:
                pass
            if self._protocol not in _MULTIPART | _PUT and self._fs.isdir(path):
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm(path, recursive=True)  # folders exist by themselves on file servers, and in memory

    def _remove_all(self, paths: list[str]) -> None:
        plain = [path for path in paths if not set("*?[]") & set(path)]  # `rm` takes others for patterns
        if plain and self._protocol in _MULTIPART:
            self._fs.rm(plain)
            paths = [path for path in paths if set("*?[]") & set(path)]
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(path)

    def entries(self, folder: str) -> Iterator[Entry]:
        path = self._path(folder)
        uri = self.uri_of(folder)
        prefix = f"{folder}/" if folder else ""
        own = path.strip("/")
        for details in listed_folder(self._fs, path, uri, is_s3=self._is_s3):
            full = str(details["name"]).strip("/")
            is_folder = details.get("type") == "directory"
            name = full.rpartition("/")[2]
            if full == own and not is_folder and not str(details["name"]).endswith("/"):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), uri)
            if full == own and not is_folder and not details.get("size"):
                continue  # the empty object that stands for a folder on some buckets
            if full == own or name in (".", ".."):
                problem = OSError(errno.EINVAL, "has names with empty parts, . or .., which are not supported", uri)
                yield Entry(folder, is_folder=True, error=problem)
            elif is_folder:
                yield Entry(prefix + name, is_folder=True)
            elif details.get("type") == "file" and not is_temporary(name):
                yield Entry(prefix + name, is_folder=False, stat=stat_of(details))

    def remove_leftovers(self, folder: str, *, min_age_s: float) -> int:
        uri = self.uri_of(folder)
        path = self._path(folder)
        newest = time.time() - min_age_s
        count = 0
        with translated(uri):
            if self._is_s3:  # unfinished uploads cost money there until somebody aborts them
                bucket, _, prefix = path.partition("/")
                for upload in self._fs.list_multipart_uploads(bucket):
                    if f"{upload['Key']}/".startswith(f"{prefix}/") and upload["Initiated"].timestamp() <= newest:
                        self._fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
                        count += 1
            elif self._protocol not in _MULTIPART | _PUT and self.is_shared:
                for _, _, files in self._fs.walk(path, detail=True, on_error="omit"):
                    for name, details in files.items():
                        written = time_of(details)
                        if is_temporary(name) and written is not None and written <= newest:
                            self._fs.rm_file(details["name"])
                            count += 1
        return count


class _Reader(io.RawIOBase):
    """A raw reader over one of fsspec's files whose errors are OSErrors, and whose end is the object's."""

    def __init__(self, file: Any, uri: str) -> None:
        super().__init__()
        self._file = file
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any, /) -> int:
        target = memoryview(buffer).cast("B")
        position = self._file.tell()
        with translated(self._uri):
            data = self._file.read(len(target))
        size = getattr(self._file, "size", None)
        if not data and target and size is not None and position < size:
            raise OSError(errno.EIO, f"ends after {position:,} of {size:,} bytes", self._uri)
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(Exception):
                self._file.close()
        super().close()


def _renames(fs: Any) -> bool:
    from fsspec import AbstractFileSystem

    return type(fs).mv is not AbstractFileSystem.mv


def _file_system_class(protocol: str) -> Any:
    """Returns fsspec's class for a protocol.

    Raises:
        LLMZipError: fsspec or the protocol's package is missing, or the protocol is unknown.
    """
    try:
        import fsspec
    except ImportError:
        raise LLMZipError('many machines need Ray: pip install "llmzip[ray]"') from None
    try:
        return fsspec.get_filesystem_class(protocol)
    except ValueError:
        raise LLMZipError(f"{protocol}:// is not a protocol that fsspec knows") from None
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        hint = f"pip install {package}" if package else str(storage_error(error, protocol).strerror)
        raise LLMZipError(f"{protocol}:// needs another package: {hint}") from None
