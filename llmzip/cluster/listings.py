"""Reads what fsspec's file systems say about folders and objects, and lists S3 page by page."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from .faults import translated, with_retries
from .stores import Stat

_ETAGS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "content_settings", "blob_id", "oid", "xet_hash",
          "version_id", "LastModified", "last_modified", "mtime", "modified", "updated", "created")  # fmt: skip
"""What stores say about an object's version, the best first."""


def listed_folder(fs: Any, path: str, uri: str, *, is_s3: bool) -> Iterator[dict[str, Any]]:
    """Yields what fsspec says about each name in a folder, sorted by name.

    Only S3 comes page by page, in bounded memory. Other stores' folders are held as a whole, with about 1 KB for each
    name; fsspec has no other way.

    Args:
        fs: the fsspec file system.
        path: the folder's path in it.
        uri: the folder's URI, for messages.
        is_s3: whether `fs` is s3fs.

    Raises:
        OSError: the folder does not exist or cannot be listed.
    """
    if is_s3 and path:
        yield from _listed_on_s3(fs, path, uri)
        return

    def ls() -> list[dict[str, Any]]:
        with translated(uri):
            return sorted(fs.ls(path, detail=True), key=lambda details: str(details["name"]))

    yield from with_retries(ls)


def _listed_on_s3(fs: Any, path: str, uri: str) -> Iterator[dict[str, Any]]:
    token: str | None = ""
    is_empty = True
    while token is not None:

        def page(token: str = token) -> dict[str, Any]:
            with translated(uri):
                return _s3_page(fs, path, token=token)

        answer = with_retries(page)
        bucket = path.partition("/")[0]
        found = [
            {"name": f"{bucket}/{item['Key']}", "type": "file", "size": item["Size"], "ETag": item["ETag"]}
            for item in answer.get("Contents", ())
        ]
        found += [
            {"name": f"{bucket}/{item['Prefix'][:-1]}", "type": "directory"}
            for item in answer.get("CommonPrefixes", ())
        ]
        is_empty &= not found
        yield from sorted(found, key=lambda details: str(details["name"]))
        token = answer["NextContinuationToken"] if answer.get("IsTruncated") else None
    if is_empty and "/" in path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)


def is_s3_folder(fs: Any, path: str) -> bool:
    """Whether a bucket exists, or has any object below a folder; s3fs itself would list everything in it."""
    if not path:
        return True
    try:
        answer = _s3_page(fs, path, limit=1)
    except FileNotFoundError:
        return False
    return "/" not in path or bool(answer.get("Contents") or answer.get("CommonPrefixes"))


def _s3_page(fs: Any, path: str, *, token: str = "", limit: int = 1000) -> dict[str, Any]:
    bucket, _, key = path.partition("/")
    more = {"ContinuationToken": token} if token else {}
    prefix = f"{key}/" if key else ""
    answer = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", MaxKeys=limit, **more)
    return dict(answer)


def stat_of(details: dict[str, Any]) -> Stat:
    """Returns size and etag from what fsspec says about an object."""
    size = details.get("size")
    etag = next((_text(details[key]) for key in _ETAGS if details.get(key)), "")
    return Stat(int(size or 0), etag)


def time_of(details: dict[str, Any]) -> float | None:
    """Returns when a file on a server was written, in seconds since 1970; None if that is not known."""
    value = details.get("mtime", details.get("modified"))
    if isinstance(value, datetime):
        return value.timestamp()
    return value if isinstance(value, (int, float)) else None


def _text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, datetime):
        return str(value.timestamp())  # memory:// says the same time as a datetime and as a number
    if hasattr(value, "content_md5"):  # of adlfs
        return _text(value.content_md5) if value.content_md5 else ""
    return str(value).strip('"')
