"""Values of options that click cannot parse by itself: sizes, times, ranges, lists, names of models, prompts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import click

from ..system.filenames import FileProblem, input_name
from ..system.fileops import open_source
from ..system.streams import read_upto

MAX_PROMPT_BYTES = 1 << 26  # 64 MiB

_SIZE = re.compile(r"([0-9]+) ?(|[kmg]i?)b?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_NUMBER = "-?[0-9]{1,18}"
_RANGE = re.compile(f"({_NUMBER})?:({_NUMBER})?")
_MAX_DIGITS = 7  # of a number in a list


class Size(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number of bytes: 5000, 64K, 64KiB, 1MB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _SIZE.fullmatch(str(value))
        if match is None or int(match[1]) < 1:
            self.fail(f"{value!r} is not a number of bytes such as 5000, 64KiB or 1MB", param, ctx)
        return int(match[1]) * _SIZE_UNITS[match[2].lower()]


class _Quantity(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number and perhaps its unit.

    Attributes:
        pattern: what to match: the number and the unit.
        units: what the number is multiplied by, for each unit.
        wanted: what is accepted, for the message.
    """

    pattern: ClassVar[re.Pattern[str]]
    units: ClassVar[dict[str, float]]
    wanted: ClassVar[str]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = self.pattern.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is not {self.wanted}", param, ctx)
        return float(match[1]) * self.units[match[2]]


class Percentage(_Quantity):
    """A share: 5%, 0.5 % or 5."""

    name = "percentage"
    pattern = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?) ?(%?)")
    units: ClassVar = {"": 1.0, "%": 1.0}
    wanted = "a percentage such as 5% or 0.5%"


class Duration(_Quantity):
    """A time in seconds, or a number with s, m, h or d."""

    name = "time"
    pattern = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
    units: ClassVar = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    wanted = "a time: use a number with s, m, h or d, such as 20m"


class Share(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A pattern of file names and their share of the training text: PATTERN=SHARE."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        pattern, _, share = str(value).rpartition("=")
        if not pattern:
            self.fail(f"{value!r} is not PATTERN=SHARE", param, ctx)
        try:
            return pattern, float(share)
        except ValueError:
            self.fail(f"{share!r} in {value!r} is not a number", param, ctx)


class Numbers(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Positive numbers separated by commas, each once."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        parts = value.split(",")
        if not all(part.isascii() and part.isdecimal() and len(part) <= _MAX_DIGITS and int(part) for part in parts):
            self.fail(f"{value!r} is not a list of numbers such as 31,127,255", param, ctx)
        return tuple(dict.fromkeys(map(int, parts)))


class Range(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A range A:B, of which either end may be left out.

    Args:
        allows_single: whether a single number A means A:A+1.
        allows_negative: whether numbers below 0 count from the end.
    """

    name = "range"

    def __init__(self, *, allows_single: bool = False, allows_negative: bool = False) -> None:
        self._allows_single, self._allows_negative = allows_single, allows_negative

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        if self._allows_single and re.fullmatch("[0-9]{1,18}", value):
            return int(value), int(value) + 1
        match = _RANGE.fullmatch(value)
        if match is None or ("-" in value and not self._allows_negative):
            self.fail(f"{value!r} is not of the form A:B", param, ctx)
        first, last = int(match[1] or 0), int(match[2]) if match[2] else None
        if last is not None and _is_before(last, first):
            self.fail(f"{value!r} ends before it begins", param, ctx)
        return first, last


class LineRange(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Lines A:B, both of them included, numbered from 1; below 0 from the end; or a single line N.

    Converts to the first line, and the last one or None for all after it.
    """

    name = "lines"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        match = _RANGE.fullmatch(value if ":" in value else f"{value}:{value}")
        if match is None or value == ":":
            self.fail(f"{value!r} is not of the form A:B or N", param, ctx)
        first, last = int(match[1] or 1), int(match[2]) if match[2] else None
        if first == 0 or last == 0:
            self.fail(f"{value!r}: the first line is 1, the last one -1", param, ctx)
        if last is not None and _is_before(last, first):
            self.fail(f"{value!r} ends before it begins", param, ctx)
        return first, last


def _is_before(last: int, first: int) -> bool:
    """Whether a range is empty whatever it is a range of: both ends are counted from the same side."""
    return last < first and (last < 0) == (first < 0)


class WorkerRange(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """How many workers: N, or MIN-MAX."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        first, _, last = str(value).partition("-")
        if not all(part.isascii() and part.isdecimal() and len(part) <= _MAX_DIGITS for part in (first, last or "1")):
            self.fail(f"{value!r} is not a number of workers such as 8 or 2-100", param, ctx)
        low, high = int(first), int(last or first)
        if not 1 <= low <= high:
            self.fail(f"{value!r} is not a number of workers such as 8 or 2-100", param, ctx)
        return low, high


def listed_names(values: Sequence[str]) -> list[str]:
    """Returns the names that the values of a repeatable option list, separated by commas, each once and in order."""
    return list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def model_names(values: Sequence[str]) -> tuple[str, ...]:
    """Returns the models that the values of `options.several_models` name, each once and in order.

    A comma separates two names unless it is part of a path: the longest part of a value that exists is taken first.
    """
    return tuple(dict.fromkeys(name for value in values for name in _listed_models(value)))


def _listed_models(value: str) -> Iterator[str]:
    parts = value.split(",")
    while parts:
        count = next((n for n in range(len(parts), 1, -1) if os.path.exists(",".join(parts[:n]))), 1)
        name = ",".join(parts[:count])
        name = name if os.path.exists(name) else name.strip()
        if name:
            yield name
        parts = parts[count:]


def read_prompt(name: str | None) -> bytes:
    """Reads the text of --prompt-file; returns b"" if there is none.

    Raises:
        click.UsageError: the file cannot be read, is empty or too long.
    """
    if name is None:
        return b""
    if input_name(name) is None:
        raise click.UsageError(f"--prompt-file {name}: must be a file; the standard input is the text itself")
    try:
        with open_source(name) as source:
            text = read_upto(source.file, MAX_PROMPT_BYTES + 1)
    except FileProblem:
        raise click.UsageError(f"--prompt-file {name}: Is a directory") from None
    except OSError as error:
        raise click.UsageError(f"--prompt-file {name}: {error.strerror}") from None
    if not text or len(text) > MAX_PROMPT_BYTES:
        raise click.UsageError(f"--prompt-file {name}: must have 1 to {MAX_PROMPT_BYTES:,} bytes")
    return text
