"""How the tokens of a frame lie in rows (format section 4); plain arithmetic, must not know models or coders."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CorruptError
from .headers import FrameHeader


@dataclass(frozen=True)
class Rows:
    """Where the tokens of a frame lie, and which rows take part in which step.

    Attributes:
        num_tokens: N, at least 1.
        num_rows: R, 1 to N.
    """

    num_tokens: int
    num_rows: int

    @property
    def full_steps(self) -> int:
        """Steps in which all rows take part."""
        return self.num_tokens // self.num_rows

    @property
    def long_rows(self) -> int:
        """Rows that hold one token more than the others; they come first."""
        return self.num_tokens % self.num_rows

    @property
    def steps(self) -> int:
        """The full steps, and one more for the long rows if there are any."""
        return self.full_steps + (self.long_rows > 0)

    def active_rows(self, step: int) -> int:
        """Rows that take part in a step; they come first."""
        return self.num_rows if step < self.full_steps else self.long_rows

    def row_starts(self) -> list[int]:
        """R + 1 places: where each row begins among the frame's tokens, and N."""
        short, long = self.full_steps, self.long_rows
        return [row * short + min(row, long) for row in range(self.num_rows + 1)]

    def row_slices(self) -> list[slice]:
        """Where each row lies among the frame's tokens."""
        starts = self.row_starts()
        return [slice(starts[row], starts[row + 1]) for row in range(self.num_rows)]


@dataclass(frozen=True)
class RowPlan(Rows):
    """Rows that go through a model.

    Attributes:
        overlap: inputs that a new context begins with, 1 to context - 1.
    """

    overlap: int


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
