"""How the tokens of a frame lie in rows (format section 4); plain arithmetic, must not know models or coders."""

from __future__ import annotations

from dataclasses import dataclass

from .container import FrameHeader
from .errors import CorruptError


@dataclass(frozen=True)
class RowPlan:
    """How the tokens of a frame lie in rows.

    Attributes:
        num_tokens: N, at least 1.
        num_rows: R, 1 to N.
        overlap: inputs that a new context begins with, 1 to context - 1.
    """

    num_tokens: int
    num_rows: int
    overlap: int

    @property
    def full_steps(self) -> int:
        """Steps in which all rows take part."""
        return self.num_tokens // self.num_rows

    @property
    def long_rows(self) -> int:
        """Rows that hold one token more than the others; they come first."""
        return self.num_tokens % self.num_rows

    def row_slices(self) -> list[slice]:
        """Where each row lies among the frame's tokens."""
        short, long = self.full_steps, self.long_rows
        starts = [row * short + min(row, long) for row in range(self.num_rows + 1)]
        return [slice(starts[row], starts[row + 1]) for row in range(self.num_rows)]


def profile_plan(profile: int, num_tokens: int, context: int) -> RowPlan:
    """The rows and the overlap of profiles 0, 1 and 2 (format section 4)."""
    tokens_per_row, most, eighths = ((128, 256, 1), (512, 128, 4), (4096, 64, 6))[profile]
    rows = max(1, min(num_tokens // tokens_per_row, most))
    return RowPlan(num_tokens, rows, max(1, context * eighths // 8))


def header_plan(header: FrameHeader, context: int) -> RowPlan:
    """The rows that a frame's header asks for.

    Raises:
        CorruptError: an overlap that the model's context does not allow.
    """
    if header.profile != 3:
        return profile_plan(header.profile, header.num_tokens, context)
    if header.overlap >= context:
        raise CorruptError(f"damaged: overlap {header.overlap} with a context of {context}")
    return RowPlan(header.num_tokens, header.rows, header.overlap)


def num_rows(header: FrameHeader) -> int:
    """R of a frame that holds tokens, as far as its header is right."""
    return header.rows if header.profile == 3 else profile_plan(header.profile, header.num_tokens, 8).num_rows
