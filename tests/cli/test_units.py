"""Numbers as people read them."""

from __future__ import annotations

import pytest

from llmzip.cli import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "under 1 s"),
        (0.99, "under 1 s"),
        (1.0, "1 s"),
        (119.4, "119 s"),
        (120.0, "2 min"),
        (7199.0, "120 min"),
        (7200.0, "2.0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert units.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "seconds", "text"),
    [(0, 1.0, "0.00 B/s"), (60_000, 1.0, "60.0 KB/s"), (1500, 0.001, "1.50 MB/s"), (100, 0.0, "0.00 B/s")],
)
def test_speeds_have_three_digits(size: int, seconds: float, text: str) -> None:
    assert units.speed_text(size, seconds) == text


def test_an_empty_original_has_no_ratio() -> None:
    assert (units.percentage_text(0, 20), units.bits_per_byte_text(0, 20)) == ("-", "-")
    assert (units.percentage_text(400, 100), units.bits_per_byte_text(400, 100)) == ("25.0 %", "2.00")
