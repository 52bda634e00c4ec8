"""Headers: what their fields mean, by name, and that names and fields are packed into the same bytes."""

from __future__ import annotations

import pytest

from llmzip.format import headers
from llmzip.format.headers import (
    ENGINE_EXACT,
    ENGINE_FLOAT,
    FLOAT_DTYPES,
    LM,
    MIXED,
    STORED,
    USER_MODEL,
    WINDOWS,
    FrameHeader,
    Header,
    ModelRecord,
    WindowsRecord,
)
from llmzip.format.writing import pack_header

RECORD = WindowsRecord(window_bits=32, count=20, last_tokens=1, group=10)


def record(**fields: str | int) -> ModelRecord:
    return ModelRecord("m", bytes(16), bytes(16), context=512, start_token=7, **fields)  # type: ignore[arg-type]


def test_with_last_changes_only_the_mark() -> None:
    header = FrameHeader(LM, 50, 3, num_tokens=40, profile=3, rows=4, overlap=5)
    last = headers.with_last(header, True)
    assert last == FrameHeader(LM, 50, 3, num_tokens=40, profile=3, rows=4, overlap=5, last=True)
    assert headers.with_last(last, False) == header


def test_marks_and_counts_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        FrameHeader(STORED, False, 3, 3)  # type: ignore[misc]


def test_headers_by_name_are_those_by_their_fields() -> None:
    assert FrameHeader.stored(7) == FrameHeader(STORED, 7, 7)
    assert FrameHeader.adaptive(9, 4) == FrameHeader(MIXED, 9, 4, num_tokens=0)
    for fresh, profile in ((True, 0), (False, 1)):
        header = FrameHeader.of_windows(900, 100, RECORD, num_tokens=300, fresh=fresh)
        assert header == FrameHeader(WINDOWS, 900, 100, num_tokens=300, profile=profile, windows=RECORD)
        assert header.keeps_context is not fresh and not header.has_explicit_rows


def test_a_mixed_frame_without_tokens_is_adaptive() -> None:
    adaptive, mixed = FrameHeader.adaptive(9, 4), FrameHeader(MIXED, 9, 4, num_tokens=3)
    assert (adaptive.is_adaptive, adaptive.method_name, adaptive.uses_model) == (True, "adaptive", False)
    assert (mixed.is_adaptive, mixed.method_name, mixed.uses_model) == (False, "mixed", True)


def test_only_windows_keep_a_context() -> None:
    header = FrameHeader(LM, 50, 3, num_tokens=40, profile=1)
    assert not header.keeps_context and not header.has_explicit_rows
    assert FrameHeader(LM, 50, 3, num_tokens=40, profile=3, rows=4, overlap=5).has_explicit_rows


@pytest.mark.parametrize("planes", [1, 2])
def test_a_record_of_the_exact_engine_holds_planes(planes: int) -> None:
    model = record(planes=planes)
    assert (model.engine, model.number_format) == (ENGINE_EXACT, planes)
    assert pack_header(Header(USER_MODEL, model))[5:8] == bytes([ENGINE_EXACT, model.numerics, planes])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_record_of_the_float_engine_holds_a_dtype(number: int) -> None:
    model = record(dtype=FLOAT_DTYPES[number - 1], numerics=1)
    assert (model.engine, model.number_format, model.planes) == (ENGINE_FLOAT, number, None)
    assert pack_header(Header(USER_MODEL, model))[5:8] == bytes([ENGINE_FLOAT, 1, number])
