"""Batches of a table, read and extended in the form they came in; must not know compression or Ray.

A batch is what Ray Data hands to a function: a dict of numpy arrays, a pandas.DataFrame or a pyarrow.Table. Neither
pandas nor pyarrow is imported before such a batch is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from ..errors import SettingsError

BatchT = TypeVar("BatchT")
Kind = type[bytes] | type[str] | type[int]
Column = tuple[Kind, Sequence[Any]]
"""Type of the values, and a value or None for each row of the batch."""


def cells(batch: object, name: str) -> list[Any]:
    """Returns the values of a column, with None for those that are missing: NaN, NaT and pandas.NA among them.

    Args:
        batch: a dict of arrays, a pandas.DataFrame or a pyarrow.Table of n rows.
        name: name of the column.

    Returns:
        n values.

    Raises:
        SettingsError: the batch has no such column.
        TypeError: the batch has another form.
    """
    names = column_names(batch)
    if name not in names:
        listed = ", ".join(map(repr, names)) or "none"
        raise SettingsError(f"there is no column {name!r}; the columns are: {listed}")
    values: Any = batch[name]  # type: ignore[index]
    if hasattr(values, "to_pylist"):  # pyarrow.ChunkedArray
        return list(values.to_pylist())
    if hasattr(values, "isna"):  # pandas.Series
        return [None if missing else value for value, missing in zip(values, values.isna(), strict=True)]
    return [None if isinstance(value, float) and np.isnan(value) else value for value in values]


def column_names(batch: object) -> list[str]:
    """Returns the names of a batch's columns.

    Raises:
        TypeError: the batch is neither a dict nor a DataFrame nor a Table.
    """
    if isinstance(batch, Mapping):
        return list(batch)
    if _is_arrow(batch):
        return list(batch.column_names)  # type: ignore[attr-defined]
    if hasattr(batch, "columns") and hasattr(batch, "assign"):
        return list(batch.columns)
    raise TypeError(
        f"a batch must be a dict of arrays, a pandas.DataFrame or a pyarrow.Table, not {type(batch).__name__}"
    )


def with_columns(batch: BatchT, columns: Mapping[str, Column]) -> BatchT:
    """Returns a batch with further columns, in the same form; a column of the same name is replaced.

    Args:
        batch: a batch of n rows; it stays as it is.
        columns: n values each, by name.
    """
    if isinstance(batch, Mapping):
        arrays = {name: _array(kind, values) for name, (kind, values) in columns.items()}
        return cast("BatchT", {**batch, **arrays})
    if _is_arrow(batch):
        return cast("BatchT", _with_arrow_columns(batch, columns))
    frame: Any = batch
    dtypes = {bytes: object, str: object, int: "Int64"}
    for name, (kind, values) in columns.items():
        added = type(frame)({name: values}, index=frame.index, dtype=dtypes[kind])
        frame = frame.assign(**{name: added[name]})
    return cast("BatchT", frame)


def _array(kind: Kind, values: Sequence[Any]) -> np.ndarray:
    """Returns integers as int64, if none is missing, and all else as objects: dtype S would drop zeros at the end."""
    if kind is int and None not in values:
        return np.array(values, dtype=np.int64)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _is_arrow(batch: object) -> bool:
    return hasattr(batch, "column_names") and hasattr(batch, "append_column")


def _with_arrow_columns(table: Any, columns: Mapping[str, Column]) -> Any:
    import pyarrow as pa  # type: ignore[import-untyped, import-not-found, unused-ignore]

    types = {bytes: pa.binary(), str: pa.string(), int: pa.int64()}
    for name, (kind, values) in columns.items():
        array = pa.array(values, types[kind])  # in chunks if it has more than 2 GiB
        place = table.schema.get_field_index(name)
        table = table.append_column(name, array) if place < 0 else table.set_column(place, name, array)
    return table
