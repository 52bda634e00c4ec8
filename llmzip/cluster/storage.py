"""Opens stores by their URI or path, and has what users of stores need; see `stores` for what a store can do."""

from __future__ import annotations

import re

from .faults import is_transient, with_retries
from .localstore import LocalStore
from .remotestore import RemoteStore
from .stores import RUN_FOLDER, Entry, Stat, Store, is_temporary, join, without_password

__all__ = [
    "RUN_FOLDER",
    "Entry",
    "Stat",
    "Store",
    "is_temporary",
    "is_transient",
    "join",
    "open_store",
    "split_uri",
    "with_retries",
    "without_password",
]

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def split_uri(uri: str) -> tuple[str, str]:
    """Returns the protocol in lower case and the rest of a URI; "file" and the path for a local path.

    file:// and local:// URIs give their path as it is, without decoding %20 and the like, as fsspec does.
    """
    match = _PROTOCOL.match(uri)
    if match is None:
        return "file", uri
    protocol = match[1].lower()
    return ("file" if protocol in ("file", "local") else protocol), uri[match.end() :]


def open_store(uri: str) -> Store:
    """Returns the store whose root is a URI (s3://bucket/folder, gs://, az://, hf://, sftp://, ...) or a local path.

    Nothing is read or made: the root need not exist.

    Raises:
        LLMZipError: fsspec or the protocol's package is missing, or the protocol is unknown; one line that says so.
        OSError: the URI is not valid.
    """
    protocol, path = split_uri(uri)
    return LocalStore(path or ".") if protocol == "file" else RemoteStore(uri)
