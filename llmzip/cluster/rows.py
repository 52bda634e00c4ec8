"""Result rows: one for each file, or for each part of a file that is measured or tested in parts.

Rows are Parquet and JSON lines. Numbers of bits are whole, so they add up to the same sum in any order.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import EXIT_FAILED, CorruptError
from ..system.failures import error_kind, explain
from .storage import Store

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """What became of a file, or of a part of it.

    Attributes:
        path: the input as people write it; bytes that are not UTF-8 as backslash escapes.
        offset: where the part begins in the text (test, entropy of large files); 0 for a whole file.
        output: path of the output; None without one.
        bytes: size of the text.
        bits: bits of the archive; of entropy, of the text by the model, rounded up; None if it failed.
        tokens: tokens of the text that the model has seen.
        sha256: digest of the text.
        archive_bytes: size of the archive.
        archive_sha256: digest of the archive.
        seconds: wall clock; of a file in parts, of the step that completed it.
        worker: node and process that finished it.
        kept: whether an earlier run had made the output, and it was found to be right; of test and entropy, whether the
            row is an earlier run's.
        error: one line; None if all went well.
        error_kind: name of the error's class, as in other JSON of llmzip; None likewise.
        exit_status: what the error alone would make of the program's exit status; 0 likewise.
    """

    path: str
    offset: int = 0
    output: str | None = None
    bytes: int | None = None
    bits: int | None = None
    tokens: int | None = None
    sha256: str | None = None
    archive_bytes: int | None = None
    archive_sha256: str | None = None
    seconds: float = 0.0
    worker: str = ""
    kept: bool = False
    error: str | None = None
    error_kind: str | None = None
    exit_status: int = 0

    def to_json(self) -> str:
        """Returns the row as one line of ASCII."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, line: str) -> Row:
        """Reads what `to_json` wrote."""
        return cls.of(json.loads(line))

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Row:
        """Makes a row of its fields; other keys are left out."""
        return cls(**{field.name: facts[field.name] for field in dataclasses.fields(cls)})


def error_row(path: str, error: Exception, *, offset: int = 0, worker: str = "") -> Row:
    """Returns the row of an input that failed.

    Args:
        path: the input, as `shown_path` gives it.
        error: why.
        offset, worker: as in `Row`.
    """
    status, reason = explain(error, path)
    line = " ".join(reason.split())
    kind = error_kind(error)
    return Row(path, offset, worker=worker, error=line, error_kind=kind, exit_status=status or EXIT_FAILED)


def shown_path(path: str) -> str:
    """Returns a path in valid UTF-8, with backslash escapes for what is not."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_rows(store: Store, name: str, rows: Iterable[Row]) -> None:
    """Writes rows as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=_arrow_schema())
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    store.write(name, buffer.getvalue())


def read_rows(store: Store, name: str) -> list[Row] | None:
    """Reads the rows of a Parquet file; None if there is none.

    Raises:
        CorruptError: it cannot be read as such.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = store.read_all(name)
    except FileNotFoundError:  # asked for, not looked up before: another worker may remove it in between
        return None
    try:
        table = pq.read_table(io.BytesIO(data), schema=_arrow_schema())
        return [Row.of(facts) for facts in table.to_pylist()]
    except (pa.ArrowException, TypeError) as error:
        raise CorruptError(f"{name}: damaged rows ({str(error).partition(chr(10))[0]})") from error


def _arrow_schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    fields = []
    for field in dataclasses.fields(Row):
        kind, _, optional = str(field.type).partition(" | ")
        fields.append(pa.field(field.name, kinds[kind], nullable=bool(optional)))
    return pa.schema(fields)
