"""Numbers and speeds as benchmarks print them."""

from __future__ import annotations

SPEED_UNITS = ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "KB/s"), (1.0, "B/s"))
"""Bytes per second of each unit; powers of ten, the largest first."""


def number_text(value: float | None, digits: int = 0) -> str:
    """Returns a number with thousands separated by commas; - for an unknown one."""
    return "-" if value is None else f"{value:,.{digits}f}"


def speed_text(bytes_per_second: float | None) -> str:
    """Returns a speed in three digits; 1 KB is 1,000 bytes; - for an unknown one."""
    if bytes_per_second is None:
        return "-"
    factor, unit = next((pair for pair in SPEED_UNITS if bytes_per_second >= pair[0]), SPEED_UNITS[-1])
    value = bytes_per_second / factor
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def round_speed_text(bytes_per_second: float) -> str:
    """Returns a round speed, without decimals that say nothing: 10 KB/s."""
    factor, unit = next((pair for pair in SPEED_UNITS if bytes_per_second >= pair[0]), SPEED_UNITS[-1])
    return f"{bytes_per_second / factor:g} {unit}"
