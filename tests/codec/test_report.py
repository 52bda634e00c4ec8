"""Checks the numbers of reports: characters of UTF-8 in any pieces, bits per byte and per character."""

from __future__ import annotations

import pytest

from llmzip.codec.report import CharacterCounter, StreamReport

TEXTS = ["", "a", "plain ascii\n", "é", "naïve 模型 👍🏽", "\ufeffbom", "e\u0301", "\U0010ffff" * 3]
NOT_UTF8 = [b"\xff", b"abc\x80", b"\xc3", b"ok \xe2\x82", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80", b"\x80"]


def count(data: bytes, step: int) -> int | None:
    counter = CharacterCounter()
    for start in range(0, len(data), step):
        counter.add(data[start : start + step])
    counter.add(b"")
    return counter.finish()


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("text", TEXTS)
def test_characters_are_counted_in_any_pieces(text: str, step: int) -> None:
    assert count(text.encode(), step) == len(text)


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize("data", NOT_UTF8)
def test_bytes_that_are_no_utf8_have_no_characters(data: bytes, step: int) -> None:
    assert count(data, step) is None
    assert count(b"gut " + data + b" and more text", step) is None


def test_bits_per_byte_and_character() -> None:
    report = StreamReport(original_bytes=400, compressed_bytes=100, characters=200)
    assert report.bits_per_byte == 2.0
    assert report.bits_per_character == 4.0


def test_empty_texts_have_no_bits_per_anything() -> None:
    report = StreamReport(original_bytes=0, compressed_bytes=13, characters=0)
    assert report.bits_per_byte is None and report.bits_per_character is None


def test_texts_that_are_no_utf8_have_only_bits_per_byte() -> None:
    report = StreamReport(original_bytes=10, compressed_bytes=5, characters=None)
    assert report.bits_per_byte == 4.0 and report.bits_per_character is None
