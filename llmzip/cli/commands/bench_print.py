"""What `llmzip bench` prints as it goes: tables for people, or JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...bench import report
from ...bench.measure import Contender, Text
from ...bench.results import FAILED, Row, Total
from ..command import Output
from ..messages import Messages

_LINE = "  {:<36} {:>12} {:>6} {:>9} {:>9} {:>10} {:>10} {:>10} {:>13}"
_HEADING = _LINE.format(
    "compressor", "bytes", "ratio", "bits/byte", "bits/char", "with model", "compress", "decompress", "memory MB"
)


class Printer:
    """Prints a benchmark; the listener of `bench.run.Run`.

    Args:
        output: where tables and JSON lines go.
        messages: where failures go.
    """

    def __init__(self, output: Output, messages: Messages) -> None:
        self._output = output
        self._messages = messages

    def problem(self, path: Path, error: OSError) -> None:
        """Reports a file that cannot be measured."""
        reason = error.strerror or str(error)
        self._messages.error(str(path), reason, error)
        self._output.record(record="problem", file=str(path), error=reason)

    def file(self, text: Text) -> None:
        """Prints the heading of a file's table."""
        count = "not valid UTF-8, so no bits/char" if text.characters is None else f"{text.characters:,} characters"
        if not text.size_bytes:
            count = "empty, so no ratio"
        cut = "" if text.piece_bytes is None else f", {len(text.folders):,} pieces of {text.piece_bytes:,} bytes"
        self._output.line(f"{text.name}: {text.size_bytes:,} bytes, {count}{cut}")
        self._output.line(_HEADING)

    def measuring(self, text: Text, contender: Contender) -> None:
        """Says, for -v, what is being measured."""
        self._messages.summary(text.name, f"{contender.label}, {report.cut_text(text.piece_bytes)}")

    def row(self, row: Row) -> None:
        """Prints a row, and reports it if it failed."""
        self._output.record(record="row", **row.to_dict())
        self._line(row)
        if row.status == FAILED:
            self._messages.error(row.file, f"{row.name}: {row.error}")

    def broken_promise(self, file: str, compressor: str) -> None:
        """Reports an archive that is larger than promised."""
        limit = "the smaller of xz -9e and zstd -19, plus 0.1 % and 16 bytes"
        self._messages.error(file, f"{compressor}: larger than promised, which is {limit}")

    def totals(self, totals: Sequence[Total]) -> None:
        """Prints the table of totals for one length of pieces."""
        size = max((total.original_bytes for total in totals if total.is_complete), default=0)
        cut = report.cut_text(totals[0].piece_bytes)
        self._output.line(f"all {totals[0].of_files} files, {cut}: {size:,} bytes")
        self._output.line(_HEADING)
        for total in totals:
            self._output.record(record="total", **total.to_dict())
            self._line(total)

    def _line(self, row: Row | Total) -> None:
        cells = report.cells(row)
        remark = report.remark(row)
        # With the model only bits/byte are shown: the line is long enough.
        line = f"  {row.name:<36} {remark}" if remark else _LINE.format(row.name, *cells[:4], *cells[5:])
        self._output.line(line)
