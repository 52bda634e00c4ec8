"""What a failed download or clone left in a file's place; knows no format."""

from __future__ import annotations

from pathlib import Path

_HEAD_BYTES = 512
"""Bytes of a file that are looked at for well-known mishaps."""


def reason(file: Path, error: object) -> str:
    """Returns why a file cannot be read: the mishap if it is a well-known one, else the error."""
    return mishap(file) or str(error)


def mishap(file: Path) -> str:
    """Returns what a failed download left in a file's place; "" if it is none of the well-known things."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except OSError:
        return ""
    if not head:
        return "it is empty: the download is incomplete"
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "it is a pointer of git-lfs, not the file itself: `git lfs pull` in the repository fetches the file"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<!--", b"<head")):
        return "it is a web page, perhaps an error message, not the file itself: download it again"
    return ""
