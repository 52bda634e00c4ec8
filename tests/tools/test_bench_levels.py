"""The benchmark of levels: which of them it names as having no place of their own."""

from typing import Any

import levels
import pytest


def _row(level: int, size: int, encode: float, decode: float, model: str = "base") -> dict[str, Any]:
    return {
        "model": model, "level": level, "bytes": 1000, "archive_bytes": size, "encode_seconds": encode,
        "decode_seconds": decode,
    }  # fmt: skip


def test_smaller_and_slower_levels_all_have_their_place() -> None:
    assert levels.beaten([_row(1, 300, 1.0, 1.0), _row(2, 250, 1.5, 1.5), _row(6, 200, 1.5, 3.0)]) == []


@pytest.mark.parametrize(("encode", "decode", "ways"), [(1.0, 2.0, ["encodes"]), (3.0, 1.0, ["decodes"])])
def test_a_level_that_another_beats_one_way_is_named(encode: float, decode: float, ways: list[str]) -> None:
    lines = levels.beaten([_row(1, 300, 2.0, 1.5), _row(2, 250, encode, decode)])
    assert [way for way in ("encodes", "decodes") for line in lines if way in line and "base -1: -2" in line] == ways


def test_noise_beats_no_level() -> None:
    assert levels.beaten([_row(1, 300, 1.0, 1.0), _row(2, 300, 0.96, 0.96)]) == []


def test_models_are_not_compared_with_each_other() -> None:
    assert levels.beaten([_row(1, 300, 2.0, 2.0), _row(1, 200, 1.0, 1.0, model="small")]) == []
