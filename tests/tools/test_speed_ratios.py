"""Tests benchmarks/ratios.py, what tells that llmzip has become slower; nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ratios

KIND, OTHER = "Processor, avx2, 2 threads", "Processor, amx, 2 threads"
STORED = {KIND: {"base -1, encode": 10.0, "base -1, decode": 5.0}, OTHER: {"base -1, encode": 100.0}}


@pytest.mark.parametrize("encode", [8.0, 8.01, 10.0, 100.0])
def test_up_to_a_fifth_less_is_no_regression(encode: float) -> None:
    assert ratios.compare(STORED, KIND, {"base -1, encode": encode, "base -1, decode": 4.5}) == ([], [])


def test_more_than_a_fifth_less_is_one_line_with_both_numbers() -> None:
    slower, unknown = ratios.compare(STORED, KIND, {"base -1, encode": 7.5, "base -1, decode": 5.0})
    assert unknown == []
    (line,) = slower
    assert line.startswith("REGRESSION: base -1, encode: 7.5 ") and "stored 10: 25 % less, 20 % are allowed" in line


def test_each_regression_has_its_line() -> None:
    slower, _ = ratios.compare(STORED, KIND, {"base -1, encode": 1.0, "base -1, decode": 1.0})
    assert len(slower) == 2


def test_another_kind_of_machine_is_said_and_no_failure() -> None:
    slower, unknown = ratios.compare(STORED, "Another, avx2, 8 threads", {"base -1, encode": 0.1})
    assert slower == [] and len(unknown) == 1 and "Another, avx2, 8 threads" in unknown[0]
    assert ratios.compare({}, KIND, {"base -1, encode": 0.1})[0] == []


def test_another_measurement_is_said_and_no_failure() -> None:
    slower, unknown = ratios.compare(STORED, KIND, {"small -6, encode": 0.1, "base -1, encode": 9.0})
    assert slower == [] and unknown == ["no ratio is stored for small -6, encode"]


def test_what_was_not_measured_stays_stored() -> None:
    new = ratios.updated(STORED, KIND, {"base -1, encode": 12.34567, "small -1, encode": 20.0})
    assert new[KIND] == {"base -1, encode": 12.35, "base -1, decode": 5.0, "small -1, encode": 20.0}
    assert new[OTHER] == STORED[OTHER] and STORED[KIND]["base -1, encode"] == 10.0


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    assert ratios.read(file) == {}
    ratios.write(file, STORED)
    assert ratios.read(file) == STORED and list(json.loads(file.read_text())) == sorted(STORED)


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', '{"a": {"b": "c"}}', '{"a": {"b": 0}}', '{"a": {"b": true}}', "{"])
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(text)
    with pytest.raises(ValueError):
        ratios.read(tmp_path / "speed.json")


def test_names_tell_machines_and_texts_apart() -> None:
    assert ratios.machine_kind("A  B", "avx2", 1) == "A B, avx2, 1 thread"
    assert ratios.machine_kind("A B", "avx2", 2) == "A B, avx2, 2 threads"
    names = {ratios.name_of("base", 1, text, "encode") for text in (b"ab", b"abc", b"abd")}
    assert len(names) == 3 and all(name.startswith("base -1, ") for name in names)


def test_the_stored_ratios_can_be_read() -> None:
    assert isinstance(ratios.read(Path(ratios.__file__).with_name("speed.json")), dict)
