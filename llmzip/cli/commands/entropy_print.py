"""What `llmzip entropy` prints: tables for people, JSON lines, comma-separated values, or the text cut into spans."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from ...measures import surprisal
from ...measures.entropy import Value, context_text, is_seen_whole
from ..command import Output, has_colours, piece_text
from ..records import json_name
from .entropy_request import SpanRequest
from .entropy_scores import Scored


class Printer:
    """Takes the scores of texts one by one. This one does nothing with them."""

    def add(self, scored: Scored) -> None:
        """Takes the scores of a text by a model with one context."""

    def finish(self) -> None:
        """Is called after the last scores."""


class JsonLines(Printer):
    """Prints an object for each row.

    Args:
        output: where it goes.
    """

    def __init__(self, output: Output) -> None:
        self._output = output

    def add(self, scored: Scored) -> None:
        self._output.file_record(scored.text.name, **scored.row, error=None)


class Csv(Printer):
    """Prints comma-separated values, with the names of the columns first; unknown values are empty.

    Args:
        output: where they go.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._names: list[str] | None = None

    def add(self, scored: Scored) -> None:
        values = {"file": json_name(scored.text.name)["file"] or "-", **scored.row}
        line = io.StringIO()
        writer = csv.writer(line, lineterminator="\n")
        if self._names is None:
            self._names = list(values)
            writer.writerow(self._names)
        writer.writerow([values.get(name) for name in self._names])
        self._output.stdout.write(line.getvalue().encode("utf-8", "replace"))


class Spans(Printer):
    """Prints a text cut into spans: coloured, with bars between them, or as an object for each.

    Args:
        output: where they go.
        request: how to cut the text.
    """

    def __init__(self, output: Output, request: SpanRequest) -> None:
        self._output = output
        self._request = request

    def add(self, scored: Scored) -> None:
        output, request = self._output, self._request
        coloured = has_colours(request.color, output.stdout.fileno())
        pieces: list[str] = []
        for number, span in enumerate(surprisal.spans_of(scored.units, request.rule, request.percentile)):
            text = span.text.decode("utf-8", "backslashreplace")
            if output.json:
                output.record(begin=span.begin, bytes=len(span.text), tokens=span.tokens, bits=span.bits, text=text)
            else:
                pieces.append(piece_text(text, number, coloured))
        if pieces:
            output.stdout.write(("".join(pieces) + "\n").encode("utf-8", "replace"))


class Tables(Printer):
    """Prints tables for people: the first one as rows come, the others at the end.

    Args:
        output: where they go.
        stride: tokens that each pass scores; None for half of the context.
    """

    def __init__(self, output: Output, stride: int | None) -> None:
        self._output = output
        self._scored = "half of the context" if stride is None else f"{stride:,} tokens"
        self._rows: list[tuple[str, dict[str, Value]]] = []

    def add(self, scored: Scored) -> None:
        row = scored.row
        label = f"{row['model']}  {scored.text.shown}"
        num_tokens, context = len(scored.scores.tokens), scored.scores.context
        if is_seen_whole(num_tokens, context):
            label += f"  {context_text(num_tokens, context)}"
            row = row | {"context": num_tokens, "stride": None}
        if not self._rows:
            self._output.line(f"The model's own bits and perplexity. Each pass scores {self._scored} (--stride).")
            self._heading(_BITS)
        self._rows.append((label, row))
        self._line(_BITS, row, label)

    def finish(self) -> None:
        if not self._rows:
            return
        unit = "character" if all(row["characters"] for _, row in self._rows) else "byte"
        self._output.line("")
        self._output.line(f"LLMZip's schemes and zlib alone, bits per {unit}")
        self._table([(title, key.format(unit), kind) for title, key, kind in _SCHEMES])
        self._output.line("")
        self._output.line("Rates in percent of the text, alone and with the model; bits saved per log2 of FLOPs")
        has_pieces = "piece_bytes" in self._rows[0][1]
        self._table([column for column in _RATES if has_pieces or column[2] != "p"])

    def _table(self, columns: list[_Column]) -> None:
        self._heading(columns)
        for label, row in self._rows:
            self._line(columns, row, label)

    def _heading(self, columns: list[_Column]) -> None:
        self._cells([title for title, _, _ in columns], "model  file")

    def _line(self, columns: list[_Column], row: dict[str, Value], label: str) -> None:
        self._cells([_FORMS[kind](row[key]) for _, key, kind in columns], label)

    def _cells(self, cells: list[str], label: str) -> None:
        self._output.line(" ".join(f"{cell:>12}" for cell in cells) + f"  {label}")


_Column = tuple[str, str, str]
"""Title, key in the row, and kind, a key of _FORMS."""

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
"""Kind of a column -> its text for a value; "p" is a percentage about pieces."""
