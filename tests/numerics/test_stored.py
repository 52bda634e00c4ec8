"""Checks that tables that are kept are the computed ones, and that a missing or damaged file changes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from llmzip.mixing import tables as mixing_tables
from llmzip.numerics import stored
from llmzip.numerics import tables as engine_tables

KEPT = [engine_tables.normal_table, mixing_tables.squash_table, mixing_tables.stretch_table, mixing_tables.log_table]


def test_all_are_kept() -> None:
    assert {function.__name__ for function in KEPT} == set(stored.TABLES)
    assert {file.name for file in stored.FOLDER.iterdir()} == {f"{name}.bin" for name in stored.TABLES}


@pytest.mark.parametrize("name", stored.TABLES)
def test_they_are_the_computed_ones(name: str) -> None:
    data = (stored.FOLDER / f"{name}.bin").read_bytes()
    assert data == stored.TABLES[name]().astype("<i4").tobytes()


def test_a_file_is_read_and_a_wrong_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "FOLDER", tmp_path)
    monkeypatch.setattr(stored, "TABLES", {})
    data = np.arange(5, dtype="<i4").tobytes()
    calls = []

    def made() -> np.ndarray:
        calls.append(1)
        return np.zeros(5, dtype=np.int32)

    for content, expected in ((None, 1), (b"", 2), (data[:-1] + b"\x01", 3), (data, 3)):
        if content is not None:
            (tmp_path / "made.bin").write_bytes(content)
        table = stored.stored(hashlib.sha256(data).hexdigest())(made)
        assert table().dtype == np.int32 and table() is table()
        assert len(calls) == expected
        assert table().tolist() == ([0] * 5 if content != data else [0, 1, 2, 3, 4])
