"""What `llmzip entropy` prints: tables for people, JSON lines, comma-separated values; not where rows come from."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from ...measures.entropy import Value, context_text, is_seen_whole
from ...system.process import STDIN
from ..command import Output
from ..records import json_name


class Printer:
    """Where rows go: nowhere, unless a method says more."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def row(self, name: str | None, facts: dict[str, Value]) -> None:
        """A row that is done."""

    def error(self, name: str | None, error: dict[str, Any], facts: dict[str, Value]) -> None:
        """A row that there is not; the user is told already."""

    def finish(self) -> None:
        """After the last one."""


class Json(Printer):
    """A line for each row."""

    def row(self, name: str | None, facts: dict[str, Value]) -> None:
        self._output.record(**json_name(name), **facts, error=None)

    def error(self, name: str | None, error: dict[str, Any], facts: dict[str, Value]) -> None:
        self._output.record(**json_name(name), **facts, error=error)


class OnlyErrors(Json):
    """No rows, because something else is printed; failures are still lines of JSON, if that is JSON."""

    def row(self, name: str | None, facts: dict[str, Value]) -> None:
        """Nothing."""


class Csv(Printer):
    """The same in columns, under their names; what is unknown is empty."""

    _names: list[str] | None = None

    def row(self, name: str | None, facts: dict[str, Value]) -> None:
        values = {"file": json_name(name)["file"] or "-", **facts}
        line = io.StringIO()
        writer = csv.writer(line, lineterminator="\n")
        if self._names is None:
            self._names = list(values)
            writer.writerow(self._names)
        writer.writerow([values.get(key) for key in self._names])
        self._output.stdout.write(line.getvalue().encode("utf-8", "replace"))


class Tables(Printer):
    """Tables for people: the first as rows come, the others at the end."""

    def __init__(self, output: Output, stride: int | None) -> None:
        super().__init__(output)
        self._scored = "half of the context" if stride is None else f"{stride:,} tokens"
        self._rows: list[tuple[str, dict[str, Value]]] = []

    def row(self, name: str | None, facts: dict[str, Value]) -> None:
        label = f"{facts['model']}  {STDIN if name is None else name}"
        tokens, context = facts["tokens"], facts["context"]
        if isinstance(tokens, int) and isinstance(context, int) and is_seen_whole(tokens, context):
            label += f"  {context_text(tokens, context)}"
            facts = facts | {"context": tokens, "stride": None}
        if not self._rows:
            self._output.line(f"The model's own bits, and perplexity. Each pass scores {self._scored} (--stride).")
            self._line(_BITS, None, "")
        self._rows.append((label, facts))
        self._line(_BITS, facts, label)

    def finish(self) -> None:
        if not self._rows:
            return
        unit = "character" if all(facts["characters"] for _, facts in self._rows) else "byte"
        self._output.line("")
        self._output.line(f"LLMZip's schemes and zlib alone, bits per {unit}")
        self._table([(title, key.format(unit), how) for title, key, how in _SCHEMES])
        self._output.line("")
        self._output.line("Rates in percent of the text, alone and with the model; bits saved per log2 of FLOPs")
        self._table(_RATES if "piece_bytes" in self._rows[0][1] else [column for column in _RATES if column[2] != "p"])

    def _table(self, columns: list[_Column]) -> None:
        self._line(columns, None, "")
        for label, facts in self._rows:
            self._line(columns, facts, label)

    def _line(self, columns: list[_Column], facts: dict[str, Value] | None, label: str) -> None:
        """One row, or the heads of the columns."""
        if facts is None:
            cells, label = [title for title, _, _ in columns], "model  file"
        else:
            cells = [_FORMS[how](facts[key]) for _, key, how in columns]
        self._output.line(" ".join(f"{cell:>12}" for cell in cells) + f"  {label}")


_Column = tuple[str, str, str]
"""Title, key, and how the value is shown."""

_BITS: list[_Column] = [
    ("bits/byte", "bits_per_byte", "f"),
    ("bits/char", "bits_per_character", "f"),
    ("ppl/token", "perplexity_per_token", "x"),
    ("ppl/word", "perplexity_per_word", "x"),
    ("total bits", "total_bits", "n"),
    ("tokens", "tokens", "n"),
    ("context", "context", "n"),
    ("stride", "stride", "n"),
]
_SCHEMES: list[_Column] = [
    ("bound", "bits_per_{}", "f"),
    ("arithmetic", "arithmetic_bits_per_{}", "f"),
    ("prefix", "prefix_bits_per_{}", "f"),
    ("ranks+zlib", "ranks_zlib_bits_per_{}", "f"),
    ("zlib", "zlib_bits_per_{}", "f"),
    ("context", "context", "n"),
]
_RATES: list[_Column] = [
    ("raw", "raw_rate", "%"),
    ("adjusted", "adjusted_rate", "%"),
    ("as stored", "adjusted_rate_as_stored", "%"),
    ("pieces raw", "piece_raw_rate", "p"),
    ("adjusted", "piece_adjusted_rate", "p"),
    ("capacity", "information_capacity", "f"),
    ("context", "context", "n"),
]


def _percent(value: Any) -> str:
    return "-" if value is None else f"{100 * value:,.2f}"


_FORMS = {
    "f": lambda value: "-" if value is None else f"{value:,.4f}",
    "x": lambda value: "-" if value is None else f"{value:,.2f}" if value < 1e6 else f"{value:.3e}",
    "n": lambda value: "-" if value is None else f"{math.floor(value + 0.5):,}",
    "%": _percent,
    "p": _percent,
}
