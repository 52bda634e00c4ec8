"""Rows and totals of a benchmark as texts: cells of tables, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from .results import LLMZIP, OK, Row, Total, totals
from .units import number_text, speed_text

SCHEMA = 1  # version of results.json; keys are only ever added
_COMMIT_DIGITS = 12


# -- cells -----------------------------------------------------------------------------------------------------------


def memory_text(row: Row | Total) -> str:
    """Returns the peaks of both directions; 1 MB is 1,000,000 bytes."""
    peaks = (row.compress_peak_bytes, row.decompress_peak_bytes)
    return " / ".join(number_text(None if not peak else peak / 1e6) for peak in peaks)


COLUMNS = (
    "bytes", "ratio", "bits/byte", "bits/char", "with model: bytes", "bits/byte", "compress",
    "decompress", "memory MB",
)  # fmt: skip


def cells(row: Row | Total) -> list[str]:
    """Returns the texts of the columns; dashes unless the row or total is verified."""
    is_verified = row.is_complete and bool(row.num_files) if isinstance(row, Total) else row.status == OK
    if not is_verified:
        return ["-"] * len(COLUMNS)
    figures = row.figures()
    return [
        number_text(row.compressed_bytes),
        number_text(figures["ratio"], 3),
        number_text(figures["bits_per_byte"], 3),
        number_text(figures["bits_per_character"], 3),
        number_text(figures["compressed_bytes_with_model"]),
        number_text(figures["bits_per_byte_with_model"], 3),
        speed_text(figures["compress_bytes_per_second"]),
        speed_text(figures["decompress_bytes_per_second"]),
        memory_text(row),
    ]


def remark(row: Row | Total) -> str:
    """Returns why a row or total has no figures; empty if it has."""
    if isinstance(row, Total):
        return "" if row.is_complete else f"no total: {row.num_files} of {row.of_files} files"
    return "" if row.status == OK else f"{row.status}: {row.error}"


def cut_text(piece_bytes: int | None) -> str:
    """Returns how the files were cut."""
    return "whole files" if piece_bytes is None else f"pieces of {piece_bytes:,} bytes"


# -- files -----------------------------------------------------------------------------------------------------------


def to_json(rows: Sequence[Row], problems: Sequence[dict[str, Any]], run: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of results.json.

    Args:
        rows: all rows, in order.
        problems: files that could not be read.
        run: machine and command line.
    """
    return {
        "schema": SCHEMA,
        "run": run,
        "statistic": "speeds are of the fastest run; all times are listed",
        "rows": [row.to_dict() for row in rows],
        "totals": [total.to_dict() for total in totals(rows)],
        "problems": list(problems),
    }


def to_csv(rows: Sequence[Row]) -> str:
    """Returns a line for each row; items of lists are separated by spaces."""
    out = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        facts = {key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in row.to_dict().items()}
        if writer is None:
            writer = csv.DictWriter(out, list(facts), lineterminator="\n")
            writer.writeheader()
        writer.writerow(facts)
    return out.getvalue()


def to_markdown(rows: Sequence[Row], problems: Sequence[dict[str, Any]], run: dict[str, Any]) -> str:
    """Returns a report: machine, totals, sizes by file, and every row."""
    machine = run["machine"]
    commit = machine.get("commit")
    changed = ", with uncommitted changes" if machine.get("uncommitted_changes") else ""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    lines = [
        "# Benchmark", "",
        "Every archive was decompressed and compared. The ratio is original over compressed bytes. Speeds are those of "
        "the fastest run without loading, in original bytes per second, with 1 KB = 1,000 bytes. Memory is the peak of "
        "the whole process, compressing / decompressing.", "",
        f"- command: `{run['command']}`",
        f"- machine: {machine['processor']}, {machine['cores']} cores, {(machine['memory_bytes'] or 0) / 1e9:.0f} GB, "
        f"{machine['system']}, Python {machine['python']}; load average at the start "
        f"{number_text((machine.get('load_average') or [None])[0], 2)}",
        f"- llmzip {machine['llmzip']}{f', commit {commit[:_COMMIT_DIGITS]}{changed}' if commit else ''}; {packages}",
        *(f"- {name}: {text}" for name, text in {row.name: _identity(row) for row in rows}.items()), "",
    ]  # fmt: skip
    sums = totals(rows)
    for cut in dict.fromkeys(total.piece_bytes for total in sums):
        chosen = [total for total in sums if total.piece_bytes == cut]
        size = max((total.original_bytes for total in chosen if total.is_complete), default=0)
        lines += [
            f"## All {chosen[0].of_files} files, {cut_text(cut)}",
            "",
            f"{size:,} bytes. The model is counted once.",
            "",
        ]
        lines += _table(["compressor", *COLUMNS, ""], [[t.name, *cells(t), remark(t)] for t in chosen])
        lines += [f"## Sizes by file, {cut_text(cut)}", ""]
        lines += _sizes([row for row in rows if row.piece_bytes == cut])
    lines += ["## Every row", ""]
    lines += _table(
        ["file", "cut", "compressor", *COLUMNS, ""],
        [
            [row.file, "whole" if row.piece_bytes is None else f"{row.num_pieces}", row.name, *cells(row), remark(row)]
            for row in rows
        ],
    )
    for problem in problems:
        lines.append(f"- {_escaped(problem['file'])}: {_escaped(problem['error'])}")
    return "\n".join(lines).rstrip() + "\n"


def _identity(row: Row) -> str:
    """Returns the version of a compressor, and how long llmzip took to load."""
    loaded = "" if row.via != LLMZIP or row.load_seconds is None else f"; ready after {row.load_seconds:.1f} s"
    return f"{row.version or row.error}{loaded}"


def _sizes(rows: Sequence[Row]) -> list[str]:
    """Returns the table of sizes by file and compressor; the smallest is bold."""
    names = list(dict.fromkeys(row.name for row in rows if row.status == OK))
    body = []
    for file in dict.fromkeys(row.file for row in rows):
        sizes = {row.name: row.compressed_bytes for row in rows if row.file == file and row.status == OK}
        best = min((size for size in sizes.values() if size is not None), default=None)
        original = next(row.original_bytes for row in rows if row.file == file)
        texts = [number_text(sizes.get(name)) for name in names]
        marked = [
            f"**{t}**" if sizes.get(n) == best and best is not None else t for n, t in zip(names, texts, strict=True)
        ]
        body.append([file, f"{original:,}", *marked])
    return _table(["file", "bytes", *names], body)


def _table(heading: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Returns a Markdown table with numbers aligned right; an empty last column is left out."""
    if not heading[-1] and not any(line[-1] for line in body):
        heading, body = heading[:-1], [line[:-1] for line in body]
    first_number = next((n for n, text in enumerate(heading) if text == "bytes"), len(heading))
    marks = ["---:" if first_number <= n and text else "---" for n, text in enumerate(heading)]
    lines = ["| " + " | ".join(heading) + " |", "|" + "|".join(marks) + "|"]
    return [*lines, *("| " + " | ".join(map(_escaped, line)) + " |" for line in body), ""]


def _escaped(text: str) -> str:
    """Returns a name or error for a table's cell: nothing in it ends the cell."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split())).replace("|", "\\|")
