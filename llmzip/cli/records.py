"""JSON lines about files, for --json and --report. Knows no streams, options or byte formats."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..system.failures import error_kind

if TYPE_CHECKING:
    from ..codec.report import StreamReport
    from ..measures.extrapolation import Range

SCHEMA = 1  # version of every object; keys are only ever added


def report_fields(report: StreamReport) -> dict[str, Any]:
    """Returns the fields about one file's sizes, methods and model."""
    methods: dict[str, int] = {}
    for frame in report.frames:
        methods[frame.method] = methods.get(frame.method, 0) + 1
    return {
        "original_bytes": report.original_bytes,
        "compressed_bytes": report.compressed_bytes,
        "characters": report.characters,
        "bits_per_byte": report.bits_per_byte,
        "bits_per_character": report.bits_per_character,
        "num_frames": len(report.frames),
        "frames_by_method": methods,
        "model": report.model,
        "elapsed_seconds": round(report.elapsed_seconds, 6),
    }


def range_fields(name: str, number: Range | None, digits: int) -> dict[str, float | None]:
    """Returns the fields of a number that is not known exactly: the likeliest value and the two ends of its range.

    Args:
        name: of the value's field.
        number: the value with its range; None for one that there is not.
        digits: after the point; 0 for integers.
    """
    keys = (name, f"{name}_low", f"{name}_high")
    if number is None:
        return dict.fromkeys(keys)
    return {key: round(value, digits) if digits else round(value) for key, value in zip(keys, number, strict=True)}


def json_name(name: str | None) -> dict[str, Any]:
    """Returns the fields of a file's name; a name that is not valid UTF-8 also comes as hexadecimal bytes."""
    if name is None:
        return {"file": None}
    try:
        name.encode()
    except UnicodeEncodeError:
        raw = os.fsencode(name)
        return {"file": raw.decode("utf-8", "backslashreplace"), "file_hex": raw.hex()}
    return {"file": name}


def json_error(code: int, error: BaseException, message: str) -> dict[str, Any]:
    """Returns the value of the key `error`; `code` is the exit status that this error alone would give."""
    return {"code": code, "kind": error_kind(error), "message": message}


def json_line(record: dict[str, Any]) -> bytes:
    """Returns an object as one line of ASCII, so that no name in it can steer a terminal."""
    return json.dumps(record).encode("ascii") + b"\n"


class RecordFile:
    """The file of --report.

    Args:
        write: writes a line.

    Attributes:
        error: error of the first line that could not be written; None so far. The run continues without the line.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.error: OSError | None = None

    def append(self, line: bytes) -> None:
        """Writes a line, or keeps the error."""
        try:
            self._write(line)
        except OSError as error:
            self.error = self.error or error
