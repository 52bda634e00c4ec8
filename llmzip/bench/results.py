"""Rows and totals of a benchmark, and their JSON, CSV and Markdown; must not know how anything was measured."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1  # of results.json; keys are only ever added
OK, FAILED, MISSING = "ok", "failed", "missing"
LLMZIP, LIBRARY, PROGRAM = "llmzip", "library", "program"
_PROMISE_BYTES = 64 << 20


# -- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One compressor on one file, whole or in pieces.

    Attributes:
        file: its name, with its folder's.
        sha256, original_bytes: of the file.
        characters: Unicode characters; None if it is no UTF-8.
        piece_bytes: length of the pieces that it was cut into, None for the whole file.
        num_pieces: how many archives there are.
        compressor, via, command, version: what compressed it; via is "llmzip", "library" or "program".
        host: digest of the machine's facts.
        status, error: "ok", or "failed" or "missing" and why. All figures below are of rows that are ok.
        compressed_bytes: sum over the pieces.
        archive_sha256: of the archive; of several, of their digests in hexadecimal, one a line.
        model_bytes: files that decoding needs besides the archive and the program.
        compress_times, decompress_times: seconds of each run, loading apart.
        load_seconds: of libraries, model and a first use of both, before anything was timed.
        compress_peak_bytes, decompress_peak_bytes: memory of the whole process.
        methods, bound_bits: of llmzip: those of its frames; the sum of -log2 of the coded probabilities.
    """

    file: str
    sha256: str
    original_bytes: int
    characters: int | None
    piece_bytes: int | None
    num_pieces: int
    compressor: str
    via: str
    command: str
    version: str
    host: str
    status: str = OK
    error: str | None = None
    compressed_bytes: int | None = None
    archive_sha256: str | None = None
    model_bytes: int = 0
    compress_times: list[float] = field(default_factory=list)
    decompress_times: list[float] = field(default_factory=list)
    load_seconds: float | None = None
    compress_peak_bytes: int | None = None
    decompress_peak_bytes: int | None = None
    methods: list[str] = field(default_factory=list)
    bound_bits: float | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Rows with equal keys need not be measured twice."""
        return (
            self.file, self.sha256, self.piece_bytes, self.compressor, self.via, self.command, self.version, self.host,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Of the compressor, with what tells a program from the library of the same name."""
        return f"{self.compressor} (program)" if self.via == PROGRAM else self.compressor

    def figures(self) -> dict[str, Any]:
        """What follows from the measured numbers; None for all if it is not ok."""
        return _figures(
            self.original_bytes,
            self.characters,
            self.compressed_bytes if self.status == OK else None,
            self.model_bytes,
            min(self.compress_times, default=None),
            min(self.decompress_times, default=None),
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON; figures that are not known are None."""
        return {**dataclasses.asdict(self), **self.figures()}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Row:
        """From JSON; what this version does not know is left out.

        Raises:
            TypeError: something is missing.
        """
        return cls(**{key: facts[key] for key in (field.name for field in dataclasses.fields(cls)) if key in facts})


def _figures(
    original: int,
    characters: int | None,
    compressed: int | None,
    model: int,
    compress_seconds: float | None,
    decompress_seconds: float | None,
) -> dict[str, Any]:
    """Sizes over sizes; whatever would be divided by nothing is None."""

    def over(top: float | None, bottom: float | None) -> float | None:
        return top / bottom if top is not None and bottom else None

    with_model = None if compressed is None else compressed + model
    bits = None if compressed is None else 8 * compressed
    model_bits = None if with_model is None else 8 * with_model
    known = compressed is not None
    return {
        "ratio": over(original, compressed) if original else None,
        "bits_per_byte": over(bits, original),
        "bits_per_character": over(bits, characters),
        "compressed_bytes_with_model": with_model,
        "ratio_with_model": over(original, with_model) if original else None,
        "bits_per_byte_with_model": over(model_bits, original),
        "bits_per_character_with_model": over(model_bits, characters),
        "compress_bytes_per_second": over(original, compress_seconds) if known and original else None,
        "decompress_bytes_per_second": over(original, decompress_seconds) if known and original else None,
    }


# -- totals ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Total:
    """One compressor on all files: sums first, divided once.

    Attributes:
        num_files, of_files: files in the sum, and all files; no total is shown unless they are equal.
        model_bytes: counted once.
        compress_seconds, decompress_seconds: sums of each file's fastest run.
        compress_peak_bytes, decompress_peak_bytes: the largest.
    """

    name: str
    compressor: str
    via: str
    piece_bytes: int | None
    num_files: int
    of_files: int
    original_bytes: int
    characters: int | None
    compressed_bytes: int
    model_bytes: int
    compress_seconds: float
    decompress_seconds: float
    compress_peak_bytes: int
    decompress_peak_bytes: int

    @property
    def is_complete(self) -> bool:
        """Whether no file is missing from it."""
        return self.num_files == self.of_files

    def figures(self) -> dict[str, Any]:
        """As those of a row."""
        return _figures(
            self.original_bytes,
            self.characters,
            self.compressed_bytes if self.is_complete and self.num_files else None,
            self.model_bytes,
            self.compress_seconds or None,
            self.decompress_seconds or None,
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**dataclasses.asdict(self), **self.figures()}


def totals(rows: Sequence[Row]) -> list[Total]:
    """One for each compressor and length of pieces, in the order in which they come."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    files: dict[int | None, set[str]] = {}
    for row in rows:
        groups.setdefault((row.piece_bytes is not None, row.piece_bytes, row.via, row.compressor), []).append(row)
        files.setdefault(row.piece_bytes, set()).add(row.file)
    found = []
    for group in groups.values():
        fine = [row for row in group if row.status == OK and row.compressed_bytes is not None]
        counts = [row.characters for row in fine if row.characters is not None]
        found.append(
            Total(
                group[0].name,
                group[0].compressor,
                group[0].via,
                group[0].piece_bytes,
                len(fine),
                len(files[group[0].piece_bytes]),
                sum(row.original_bytes for row in fine),
                sum(counts) if len(counts) == len(fine) else None,
                sum(row.compressed_bytes or 0 for row in fine),
                max((row.model_bytes for row in fine), default=0),
                sum(min(row.compress_times, default=0.0) for row in fine),
                sum(min(row.decompress_times, default=0.0) for row in fine),
                max((row.compress_peak_bytes or 0 for row in fine), default=0),
                max((row.decompress_peak_bytes or 0 for row in fine), default=0),
            )
        )
    return sorted(found, key=lambda total: (total.piece_bytes is not None, total.piece_bytes or 0))


def broken_promises(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """File and compressor of archives larger than llmzip promises: xz -9e or zstd -19, plus 0.1 % and 16 bytes."""
    others: dict[str, dict[str, int]] = {}
    for row in rows:
        if row.via == LIBRARY and row.status == OK and row.piece_bytes is None and row.compressed_bytes is not None:
            others.setdefault(row.file, {})[row.compressor] = row.compressed_bytes
    found = []
    for row in rows:
        sizes = [size for name, size in others.get(row.file, {}).items() if name in ("xz -9e", "zstd -19")]
        if row.via == LLMZIP and row.status == OK and row.piece_bytes is None and len(sizes) == 2:
            is_larger = 1000 * (row.compressed_bytes or 0) > 1001 * min(sizes) + 16_000
            if is_larger and row.original_bytes <= _PROMISE_BYTES:
                found.append((row.file, row.name))
    return found


# -- text ------------------------------------------------------------------------------------------------------------


def number_text(value: float | None, digits: int = 0) -> str:
    """With thousands' commas; a dash for what is not known."""
    return "-" if value is None else f"{value:,.{digits}f}"


def speed_text(bytes_per_second: float | None) -> str:
    """Original bytes per second in three digits; KB is 1,000 bytes."""
    if bytes_per_second is None:
        return "-"
    factor, unit = next(
        ((f, u) for f, u in ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "KB/s")) if bytes_per_second >= f), (1.0, "B/s")
    )
    value = bytes_per_second / factor
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def memory_text(row: Row | Total) -> str:
    """Peaks of both directions in MB, MB = 1,000,000."""
    peaks = (row.compress_peak_bytes, row.decompress_peak_bytes)
    return " / ".join(number_text(None if not peak else peak / 1e6) for peak in peaks)


COLUMNS = (
    "bytes", "ratio", "bits/byte", "bits/char", "with model: bytes", "bits/byte", "compress",
    "decompress", "memory MB",
)  # fmt: skip


def cells(row: Row | Total) -> list[str]:
    """The columns' texts; dashes unless it was verified."""
    fine = row.is_complete and bool(row.num_files) if isinstance(row, Total) else row.status == OK
    if not fine:
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
    """What a reader must know of a row without figures."""
    if isinstance(row, Total):
        return "" if row.is_complete else f"no total: {row.num_files} of {row.of_files} files"
    return "" if row.status == OK else f"{row.status}: {row.error}"


def cut_text(piece_bytes: int | None) -> str:
    """How the files were compressed."""
    return "whole files" if piece_bytes is None else f"pieces of {piece_bytes:,} bytes"


# -- files -----------------------------------------------------------------------------------------------------------


def to_json(rows: Sequence[Row], problems: Sequence[dict[str, Any]], run: dict[str, Any]) -> dict[str, Any]:
    """The content of results.json.

    Args:
        rows: in order.
        problems: files that could not be read.
        run: machine, command line and settings.
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
    """One line for each row; lists are joined by spaces."""
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
    """Machine, totals, sizes by file, and every row."""
    machine = run["machine"]
    commit = machine.get("commit")
    changed = ", with uncommitted changes" if machine.get("uncommitted_changes") else ""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    lines = [
        "# Benchmark", "",
        "Every size is of an archive that was decompressed and compared. Ratio is original over compressed bytes. "
        "Speeds are of the fastest run, original bytes per second with 1 KB = 1,000 bytes, loading apart. Memory is "
        "the peak of the whole process, compressing / decompressing.", "",
        f"- command: `{run['command']}`",
        f"- machine: {machine['processor']}, {machine['cores']} cores, {(machine['memory_bytes'] or 0) / 1e9:.0f} GB, "
        f"{machine['system']}, Python {machine['python']}; load average at the start "
        f"{number_text((machine.get('load_average') or [None])[0], 2)}",
        f"- llmzip {machine['llmzip']}{f', commit {commit[:12]}{changed}' if commit else ''}; {packages}",
        *(f"- {name}: {text}" for name, text in {row.name: _identity(row) for row in rows}.items()), "",
    ]  # fmt: skip
    found = totals(rows)
    for cut in dict.fromkeys(total.piece_bytes for total in found):
        chosen = [total for total in found if total.piece_bytes == cut]
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
    """What compressed it, and how long it took to load."""
    loaded = (
        "" if row.via != LLMZIP or row.load_seconds is None else f"; loaded and warm after {row.load_seconds:.1f} s"
    )
    return f"{row.version or row.error}{loaded}"


def _sizes(rows: Sequence[Row]) -> list[str]:
    """Bytes of each file by each compressor; the smallest is bold."""
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
    """A Markdown table, numbers to the right; a last column that is empty is left out."""
    if not heading[-1] and not any(line[-1] for line in body):
        heading, body = heading[:-1], [line[:-1] for line in body]
    first_number = next((n for n, text in enumerate(heading) if text == "bytes"), len(heading))
    marks = ["---:" if first_number <= n and text else "---" for n, text in enumerate(heading)]
    lines = ["| " + " | ".join(heading) + " |", "|" + "|".join(marks) + "|"]
    return [*lines, *("| " + " | ".join(map(_escaped, line)) + " |" for line in body), ""]


def _escaped(text: str) -> str:
    """A name or an error as it stands in a table: nothing in it ends the cell."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split())).replace("|", "\\|")
