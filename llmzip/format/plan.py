"""How the tokens of a frame are laid out in rows (format section 4); must not know models or coders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..errors import CorruptError
from .headers import FrameHeader


class RowLayout(Protocol):
    """Rows of tokens that go through a model in lockstep, the longest rows first; `RowPlan` is a frame's."""

    @property
    def num_rows(self) -> int:
        """Number of rows."""

    @property
    def overlap(self) -> int:
        """Known inputs that a new context begins with, fewer than the context holds."""

    @property
    def steps(self) -> int:
        """Tokens of the longest row."""

    def active_rows(self, step: int) -> int:
        """Returns how many rows take part in a step; they are the first ones."""

    def row_starts(self) -> list[int]:
        """Returns where each row begins among all tokens, and their number."""

    def row_slices(self) -> list[slice]:
        """Returns where each row is among all tokens."""


@dataclass(frozen=True)
class Rows:
    """Tokens of a frame in rows of equal length, the first ones a token longer where that does not divide them.

    Attributes:
        num_tokens: N, at least 1.
        num_rows: R, 1 to N.
    """

    num_tokens: int
    num_rows: int

    @property
    def full_steps(self) -> int:
        """Number of steps in which all rows take part."""
        return self.num_tokens // self.num_rows

    @property
    def long_rows(self) -> int:
        """Number of rows that hold one token more than the others; they come first."""
        return self.num_tokens % self.num_rows

    @property
    def steps(self) -> int:
        """Number of full steps, and one more for the long rows if there are any."""
        return self.full_steps + (self.long_rows > 0)

    def active_rows(self, step: int) -> int:
        """Returns how many rows take part in a step; they are the first ones."""
        return self.num_rows if step < self.full_steps else self.long_rows

    def row_starts(self) -> list[int]:
        """Returns R + 1 positions: where each row begins among the frame's tokens, and N."""
        short, long = self.full_steps, self.long_rows
        return [row * short + min(row, long) for row in range(self.num_rows + 1)]

    def row_slices(self) -> list[slice]:
        """Returns where each row is among the frame's tokens."""
        starts = self.row_starts()
        return [slice(starts[row], starts[row + 1]) for row in range(self.num_rows)]


@dataclass(frozen=True)
class RowPlan(Rows):
    """Rows of a frame that go through a model.

    Attributes:
        overlap: known inputs that a new context begins with, 1 to context - 1.
    """

    overlap: int


def profile_plan(profile: int, num_tokens: int, context: int) -> RowPlan:
    """Returns the rows and the overlap of profiles 0, 1 and 2 (format section 4)."""
    tokens_per_row, max_rows, eighths = ((128, 256, 1), (512, 128, 4), (4096, 64, 6))[profile]
    rows = max(1, min(num_tokens // tokens_per_row, max_rows))
    return RowPlan(num_tokens, rows, max(1, context * eighths // 8))


def header_plan(header: FrameHeader, context: int) -> RowPlan:
    """Returns the rows that a frame's header asks for.

    Raises:
        CorruptError: the overlap is not shorter than the model's context.
    """
    if not header.has_explicit_rows:
        return profile_plan(header.profile, header.num_tokens, context)
    if header.overlap >= context:
        raise CorruptError(f"damaged: overlap {header.overlap} with a context of {context}")
    return RowPlan(header.num_tokens, header.rows, header.overlap)
