"""What each level means, and which methods are worth trying on which bytes; knows no engines, coders or archives.

Cheap methods are simply tried, and the smallest draft is taken. The model takes long, so what it would give is first
asked of samples of the text. The numbers are measured (docs/speed.md, docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..format import headers
from ..format.plan import RowPlan, profile_plan
from ..settings import MAX_LEVEL, CompressSettings

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..inference.row_start import RowStart

PIECE_BYTES = headers.MAX_LM_BYTES
"""Text of one frame of the methods lm and mixed: 2 MiB."""

EXPLICIT = 3
"""The profile whose frames say themselves how many rows they have."""

_MAX_ROW_BYTES = 1 << 30
"""Memory that the rows of a frame may take when they decode, on whatever machine: 1 GiB."""

_MIN_BYTES_PER_TOKEN = 2
"""Of usual text, about: so many tokens a piece may have before it is known how many it has."""

SAMPLED_FROM_BYTES = 1 << 15
"""Pieces from this size on are sampled, 32 KiB: shorter ones are tried as a whole, which takes hardly longer."""

NUM_SAMPLES = 4
"""Places of a piece that samples are taken from."""

_MIXER_SAMPLE_PART = 1 / 64
"""Part of a piece in each sample for the mixer."""

_MIN_MIXER_SAMPLE_BYTES = 512
_MAX_MIXER_SAMPLE_BYTES = 4096
"""Bounds of such a sample, in bytes."""

_MODEL_GAIN = 0.97
"""The model must bring samples, each with nothing learnt, to this part of their size by the mixer without it.

It helps a sample more than the whole piece, so little is missed, and what is wrongly tried costs only time.
"""

_HOPELESS = 0.5
"""The model is not asked if the plain methods need less than this part of the mixer without it: far repetitions."""


@dataclass(frozen=True)
class Level:
    """What one level means.

    Attributes:
        min_row_tokens: tokens that a row has at least.
        max_rows: rows that a frame has at most.
        max_start_loss: part of the text's size that the rows' starts may cost at most with a model that sees far.
        profile: of the format, whose rows are nearest: 0 (fast), 1 (normal), 2 (best).
        mixes: whether the mixer runs, with the model and without it.
    """

    min_row_tokens: int
    max_rows: int
    max_start_loss: float
    profile: int
    mixes: bool = True


LEVELS = {
    1: Level(128, 2048, 0.15, 0, mixes=False),
    2: Level(128, 2048, 0.15, 0),
    3: Level(192, 1536, 0.1, 0),
    4: Level(256, 1024, 0.07, 1),
    5: Level(384, 512, 0.045, 1),
    6: Level(512, 256, 0.03, 1),
    7: Level(1024, 128, 0.02, 2),
    8: Level(4096, 64, 0.01, 2),
    9: Level(16_384, 64, 0.005, 2),
}
"""More rows decode faster, fewer are smaller; docs/speed.md has what was measured."""


_CLEAR_RATIO = 0.75
"""Ratio of the model's bits per byte to those of the plain methods up to which one look is enough."""


@dataclass(frozen=True)
class Look:
    """One look at samples of a piece by the model alone; each sample begins with an empty context.

    Attributes:
        part: of the piece, that each sample has.
        max_bytes: of each sample.
        max_ratio: by which the model's bits per byte may exceed those of the plain methods on the whole piece.
    """

    part: float
    max_bytes: int
    max_ratio: float

    def sample_bytes(self, piece_bytes: int) -> int:
        """Returns the size of each sample of a piece."""
        return min(int(self.part * piece_bytes), self.max_bytes)

    def is_good(self, bits: float, sampled_bytes: int, plain_bits_per_byte: float) -> bool:
        """Whether the model's bits for all samples are few enough to continue."""
        return bits <= self.max_ratio * plain_bits_per_byte * sampled_bytes

    @staticmethod
    def is_clear(bits: float, sampled_bytes: int, plain_bits_per_byte: float) -> bool:
        """Whether the model's bits for all samples are so few that a closer look would find the same."""
        return bits <= _CLEAR_RATIO * plain_bits_per_byte * sampled_bytes


LOOKS = (Look(1 / 32, 1536, 1.25), Look(1 / 16, 8192, 1.1))
"""The looks before a piece goes through the model without the mixer: the first one is cheap."""


class LevelPlan(NamedTuple):
    """The rows of a frame, and the profile that its header names them by (format section 4)."""

    rows: RowPlan
    profile: int


def level_plan(
    level: int,
    num_tokens: int,
    engine: Engine[Any],
    settings: CompressSettings,
    prompt_tokens: int = 0,
    start: RowStart | None = None,
) -> LevelPlan:
    """Returns the rows of a frame.

    More rows decode faster, as they share the reading of the weights and each sees fewer tokens before it; fewer rows
    are smaller. The profile is the level's if these are its rows, else EXPLICIT. No frame has more rows than decode in
    a gigabyte, whatever this machine has, unless the user says so or rows would be longer than the format allows.

    Args:
        prompt_tokens: tokens of a prompt in each row's context.
        start: what a row's start costs, if the model sees far; None if that is part of what the levels mean.
    """
    meaning = LEVELS[level]
    usual = profile_plan(meaning.profile, num_tokens, engine.context)
    rows = max(1, min(num_tokens // meaning.min_row_tokens, meaning.max_rows))
    overlap = usual.overlap
    if start is not None:
        rows = start.max_rows(num_tokens, meaning.max_start_loss, rows)
        if level < MAX_LEVEL:  # three quarters of a long context take twice the time of a half for a thousandth less
            overlap = min(overlap, engine.context // 2)
    steps = min(engine.context, prompt_tokens - (-num_tokens // rows))
    if engine.step_bytes(rows, 1, steps) > _MAX_ROW_BYTES:
        rows = min(rows, max(1, _MAX_ROW_BYTES // engine.step_bytes(1, 1, engine.context)))
    # A row has a longest length by the format, whatever was asked for.
    rows = max(min(settings.rows or rows, num_tokens), -(-num_tokens // headers.MAX_STEPS))
    plan = RowPlan(num_tokens, rows, min(settings.overlap or overlap, engine.context - 1))
    return LevelPlan(plan, meaning.profile if plan == usual else EXPLICIT)


def max_tokens(piece_bytes: int) -> int:
    """Returns about how many tokens a piece has at most."""
    return max(1, piece_bytes // _MIN_BYTES_PER_TOKEN)


def needs_samples(piece_bytes: int) -> bool:
    """Whether a piece is long enough to ask samples before all of it goes through the model."""
    return piece_bytes >= SAMPLED_FROM_BYTES


def samples(piece: bytes, sample_bytes: int) -> list[bytes]:
    """Returns NUM_SAMPLES places of a piece, evenly spread, the first and the last bytes among them."""
    step = (len(piece) - sample_bytes) // (NUM_SAMPLES - 1)
    return [piece[n * step : n * step + sample_bytes] for n in range(NUM_SAMPLES)]


def mixer_sample_bytes(piece_bytes: int) -> int:
    """Returns the size of each sample of a piece where the mixer runs."""
    return min(max(int(_MIXER_SAMPLE_PART * piece_bytes), _MIN_MIXER_SAMPLE_BYTES), _MAX_MIXER_SAMPLE_BYTES)


def model_may_be_hopeless(plain_bits_per_byte: float, sample_bits_per_byte: float) -> bool:
    """Whether the mixer alone must be tried on all of a piece before the model is asked.

    Args:
        plain_bits_per_byte: of the plain methods on the piece.
        sample_bits_per_byte: of the mixer without the model on samples: more than it needs for the whole piece.
    """
    return plain_bits_per_byte < _HOPELESS * sample_bits_per_byte


def model_is_hopeless(plain_bytes: int, mixer_bytes: int) -> bool:
    """Whether the plain methods beat the mixer without the model by so much that the model is of no use."""
    return plain_bytes < _HOPELESS * mixer_bytes


def model_helps(bits_with_model: float, bits_without: float) -> bool:
    """Whether the model makes samples so much smaller than the mixer alone that all of a piece must go through it."""
    return bits_with_model <= _MODEL_GAIN * bits_without
