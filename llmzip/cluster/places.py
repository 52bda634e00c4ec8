"""Takes URIs and paths of inputs apart, and finds the deepest folder that holds them all. Looks at no file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePath

from ..errors import LLMZipError
from ..system.filenames import FileProblem
from .storage import split_uri, without_password

_SAME = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "ssh": "sftp"}
"""Protocol -> another name of it."""

_WITHOUT_HOST = frozenset({"s3", "s3a", "gs", "gcs", "hf", "memory"})
"""Protocols whose first part is a bucket or a folder, not a server: one connection reaches all of them."""


@dataclass(frozen=True)
class Place:
    """Where an input is.

    Attributes:
        protocol: such as "s3"; "file" for local paths.
        parts: the parts of the path. The first of a local one is its root, such as "/".
    """

    protocol: str
    parts: tuple[str, ...]

    @property
    def uri(self) -> str:
        """The place as a URI, with its password if it has one, or as an absolute local path."""
        if self.protocol == "file":
            return str(PurePath(*self.parts))
        return f"{self.protocol}://{'/'.join(self.parts)}"

    @property
    def folder(self) -> Place:
        """The folder that holds the place; the place itself if it is the root."""
        return Place(self.protocol, self.parts[:-1] or self.parts)

    def below(self, root: Place) -> str | None:
        """Returns the name of the place relative to a root, with "/"; "" for the root, None if it is not below it."""
        depth = len(root.parts)
        return "/".join(self.parts[depth:]) if self.parts[:depth] == root.parts else None


def parse_place(text: str) -> Place:
    """Returns the place that a URI or a path stands for; relative paths begin at the current directory.

    ".." in a local path is resolved as the system does, through symbolic links.

    Raises:
        FileProblem: a URI has "..".
    """
    protocol, path = split_uri(text)
    if protocol == "file":
        return Place("file", PurePath(_absolute(path)).parts)
    parts = path.rstrip("/").split("/")
    if protocol in _WITHOUT_HOST:
        parts = [part for part in parts if part]
    if ".." in parts or "." in parts:
        raise FileProblem("has . or .. in its path, which is not supported in URIs")
    return Place(protocol, (*parts[:1], *(part for part in parts[1:] if part)))


def _absolute(path: str) -> str:
    parts = path.split(os.sep)
    if os.pardir in parts:
        end = len(parts) - parts[::-1].index(os.pardir)
        path = os.path.join(os.path.realpath(os.sep.join(parts[:end]) or os.sep), *parts[end:])
    return os.path.abspath(path)


def shared_place(one: Place | None, other: Place) -> Place:
    """Returns the deepest folder that holds both folders; `other` if there is only that.

    Raises:
        LLMZipError: they are in different file systems.
    """
    if one is None:
        return other
    is_same = _SAME.get(one.protocol, one.protocol) == _SAME.get(other.protocol, other.protocol)
    count = 0
    for mine, its in zip(one.parts, other.parts):  # noqa: B905 - they may differ in length
        if mine != its:
            break
        count += 1
    if not is_same or (count == 0 and one.protocol not in _WITHOUT_HOST):
        both = f"{without_password(one.uri)} and {without_password(other.uri)}"
        raise LLMZipError(f"{both} are in different file systems; use one run for each")
    return Place(one.protocol, one.parts[:count])
