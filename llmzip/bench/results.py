"""Rows and totals of a benchmark. Knows nothing of measuring."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

OK, FAILED, MISSING = "ok", "failed", "missing"
LLMZIP, LIBRARY, PROGRAM = "llmzip", "library", "program"
_MAX_PROMISE_BYTES = 64 << 20  # 64 MiB; no size is promised for larger files


# -- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One compressor on one file, whole or in pieces.

    Attributes:
        file: name of the file, with its folder's.
        sha256: digest of the file, in hexadecimal.
        original_bytes: size of the file.
        characters: number of Unicode characters; None if it is not valid UTF-8.
        piece_bytes: length of the pieces that it was cut into; None for the whole file.
        num_pieces: number of archives.
        compressor, via, command, version: what compressed it; via is "llmzip", "library" or "program".
        host: digest of the machine's facts.
        status, error: "ok"; or "failed" or "missing", and why. Only rows that are ok have the figures below.
        compressed_bytes: size of the archive; for pieces, the sum.
        archive_sha256: digest of the archive; for pieces, of their digests in hexadecimal, one a line.
        model_bytes: by how much the archive is larger if it carries its model; 0 if it needs none.
        compress_times, decompress_times: seconds of each run, without loading.
        load_seconds: time to load libraries and model and to use both once, before anything is timed.
        compress_peak_bytes, decompress_peak_bytes: peak memory of the whole process.
        methods: methods of llmzip's frames.
        bound_bits: sum of -log2 of the probabilities that llmzip coded.
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
        """What identifies a measurement: rows with equal keys need not be measured twice."""
        return (
            self.file, self.sha256, self.piece_bytes, self.compressor, self.via, self.command, self.version, self.host,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Name of the compressor; a program is marked, because a library may have the same name."""
        return f"{self.compressor} (program)" if self.via == PROGRAM else self.compressor

    def figures(self) -> dict[str, Any]:
        """Returns what follows from the measured numbers; all None unless the row is ok."""
        return _figures(
            self.original_bytes,
            self.characters,
            self.compressed_bytes if self.status == OK else None,
            self.model_bytes,
            min(self.compress_times, default=None),
            min(self.decompress_times, default=None),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns everything, for JSON; unknown figures are None."""
        return {**dataclasses.asdict(self), **self.figures()}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Row:
        """Makes a row from JSON; keys that this version does not know are ignored.

        Raises:
            TypeError: a key is missing.
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
    """Returns ratios of sizes and times; a ratio over nothing is None."""

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
        name: name of the compressor, as in `Row.name`.
        compressor, via, piece_bytes: as in a row.
        num_files: number of files in the sum.
        of_files: number of all files; a total is shown only if both are equal.
        original_bytes, characters, compressed_bytes: sums.
        model_bytes: by how much archives are larger that carry the model, counted once.
        compress_seconds, decompress_seconds: sums of each file's fastest run.
        compress_peak_bytes, decompress_peak_bytes: largest peaks.
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
        """Whether every file is in the sum."""
        return self.num_files == self.of_files

    def figures(self) -> dict[str, Any]:
        """Returns what follows from the sums; all None unless the total is complete."""
        return _figures(
            self.original_bytes,
            self.characters,
            self.compressed_bytes if self.is_complete and self.num_files else None,
            self.model_bytes,
            self.compress_seconds or None,
            self.decompress_seconds or None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns everything, for JSON."""
        return {**dataclasses.asdict(self), **self.figures()}


def totals(rows: Sequence[Row]) -> list[Total]:
    """Returns a total for each compressor and length of pieces: whole files first, compressors in order of the rows."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    files: dict[int | None, set[str]] = {}
    for row in rows:
        groups.setdefault((row.piece_bytes is not None, row.piece_bytes, row.via, row.compressor), []).append(row)
        files.setdefault(row.piece_bytes, set()).add(row.file)
    sums = [_total(group, len(files[group[0].piece_bytes])) for group in groups.values()]
    return sorted(sums, key=lambda total: (total.piece_bytes is not None, total.piece_bytes or 0))


def _total(rows: Sequence[Row], of_files: int) -> Total:
    """Returns the total of one compressor's rows."""
    measured = [row for row in rows if row.status == OK and row.compressed_bytes is not None]
    counts = [row.characters for row in measured if row.characters is not None]
    return Total(
        name=rows[0].name,
        compressor=rows[0].compressor,
        via=rows[0].via,
        piece_bytes=rows[0].piece_bytes,
        num_files=len(measured),
        of_files=of_files,
        original_bytes=sum(row.original_bytes for row in measured),
        characters=sum(counts) if len(counts) == len(measured) else None,
        compressed_bytes=sum(row.compressed_bytes or 0 for row in measured),
        model_bytes=max((row.model_bytes for row in measured), default=0),
        compress_seconds=sum(min(row.compress_times, default=0.0) for row in measured),
        decompress_seconds=sum(min(row.decompress_times, default=0.0) for row in measured),
        compress_peak_bytes=max((row.compress_peak_bytes or 0 for row in measured), default=0),
        decompress_peak_bytes=max((row.decompress_peak_bytes or 0 for row in measured), default=0),
    )


def broken_promises(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Returns file and compressor of each archive that is larger than llmzip promises.

    The promise is the smaller of xz -9e and zstd -19, plus 0.1 % and 16 bytes.
    """
    others: dict[str, dict[str, int]] = {}
    for row in rows:
        if row.via == LIBRARY and row.status == OK and row.piece_bytes is None and row.compressed_bytes is not None:
            others.setdefault(row.file, {})[row.compressor] = row.compressed_bytes
    broken = []
    for row in rows:
        sizes = [size for name, size in others.get(row.file, {}).items() if name in ("xz -9e", "zstd -19")]
        if row.via == LLMZIP and row.status == OK and row.piece_bytes is None and len(sizes) == 2:
            is_larger = 1000 * (row.compressed_bytes or 0) > 1001 * min(sizes) + 16_000
            if is_larger and row.original_bytes <= _MAX_PROMISE_BYTES:
                broken.append((row.file, row.name))
    return broken
