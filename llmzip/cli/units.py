"""Numbers as people read them: durations, ratios, bits per byte; speeds are written as benchmarks write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bench.units import speed_text as _speed_text

if TYPE_CHECKING:
    from ..measures.extrapolation import Range


def duration_text(seconds: float) -> str:
    """Returns a time in seconds, minutes or hours, as precise as an estimate deserves."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def duration_range_text(seconds: Range) -> str:
    """Returns a time that is not known exactly, with its range unless both ends read alike."""
    value, low, high = map(duration_text, seconds)
    return value if low == high else f"{value} ({low} to {high})"


def speed_text(original_bytes: int, elapsed_seconds: float) -> str:
    """Returns original bytes per second; 1 KB is 1,000 bytes."""
    return _speed_text(original_bytes / elapsed_seconds if elapsed_seconds > 0 else 0.0)


def percentage_text(original_bytes: int, compressed_bytes: int) -> str:
    """Returns the compressed size in percent of the original; - for an empty original."""
    return f"{100 * compressed_bytes / original_bytes:.1f} %" if original_bytes else "-"


def bits_per_byte_text(original_bytes: int, compressed_bytes: int) -> str:
    """Returns compressed bits per original byte; - for an empty original."""
    return f"{8 * compressed_bytes / original_bytes:.2f}" if original_bytes else "-"
