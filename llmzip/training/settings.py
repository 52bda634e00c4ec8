"""Validated settings of `llmzip train`. Must not know texts, torch or the contents of files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..settings import EngineSettings
from .shapes import PRESETS, Shape

DEFAULT_SECONDS = 20 * 60.0
MIN_SECONDS = 1.0
_MAX_SECONDS = 1e8  # three years
_MAX_STEPS = 10**8
_MIN_BATCH_TOKENS = 16
_MAX_BATCH_TOKENS = 1 << 24  # 16,777,216


@dataclass(frozen=True)
class TrainSettings:
    """What one training is to do.

    Attributes:
        texts: files and directories to train on.
        folder: of the model that is written.
        valid: files to validate on; empty to hold out a hundredth of the texts.
        mix: pattern of file names -> share of the training sequences, above 0 and at most 1.
        preset: name of a shape.
        overrides: fields of the shape that differ from the preset's.
        start_from: a model to continue from, as `choice.parse_model` takes it; its shape and tokenizer are kept.
        seconds: time for the steps of the training; None for 20 minutes, or if `steps` is given.
        steps: number of updates; None if time decides.
        batch_tokens: tokens of one update; None chooses by the budget.
        matrix_rate: learning rate of matrices; None for the optimizer's usual one.
        weight_decay: of matrices.
        seed: of everything random.
        engine: device and threads.
        compile: whether to use torch.compile; None decides by budget and machine.
        force: replace a model or an unfinished training in the folder.
    """

    texts: tuple[str, ...]
    folder: Path
    valid: tuple[str, ...] = ()
    mix: Mapping[str, float] = field(default_factory=dict)
    preset: str = "medium"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    start_from: str | os.PathLike[str] | None = None
    seconds: float | None = None
    steps: int | None = None
    batch_tokens: int | None = None
    matrix_rate: float | None = None
    weight_decay: float = 0.05
    seed: int = 0
    engine: EngineSettings = field(default_factory=EngineSettings)
    compile: bool | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not self.texts:
            raise SettingsError("no text to train on: name files or directories")
        if self.preset not in PRESETS:
            raise SettingsError(f"preset {self.preset!r} is not one of {', '.join(PRESETS)}")
        if self.seconds is not None and self.steps is not None:
            raise SettingsError("--time and --steps exclude each other")
        if self.seconds is not None and not MIN_SECONDS <= self.seconds <= _MAX_SECONDS:
            raise SettingsError(f"the time must be {MIN_SECONDS:g} to {_MAX_SECONDS:g} s, not {self.seconds:g}")
        if not 0 <= self.seed < 1 << 63:
            raise SettingsError(f"the seed must be 0 to 2^63 - 1, not {self.seed}")
        if self.steps is not None and not 1 <= self.steps <= _MAX_STEPS:
            raise SettingsError(f"the number of steps must be 1 to {_MAX_STEPS:,}, not {self.steps:,}")
        if self.batch_tokens is not None and not _MIN_BATCH_TOKENS <= self.batch_tokens <= _MAX_BATCH_TOKENS:
            raise SettingsError(
                f"the batch must be {_MIN_BATCH_TOKENS} to {_MAX_BATCH_TOKENS:,} tokens, not {self.batch_tokens:,}"
            )
        if (self.matrix_rate is not None and not 0 < self.matrix_rate <= 1) or not 0 <= self.weight_decay <= 10:
            raise SettingsError("the learning rate must be above 0 and at most 1, the weight decay 0 to 10")
        for pattern, share in self.mix.items():
            if not pattern or not 0 < share <= 1:
                raise SettingsError(f"--mix {pattern}: the share must be above 0 and at most 1, not {share:g}")
        if self.start_from is not None and set(self.overrides) - {"sequence", "num_layers"}:
            raise SettingsError("--from keeps the model's shape: only --sequence and --layers may be chosen")
        self.shape()

    def shape(self) -> Shape:
        """Returns the shape of a model that is trained from scratch."""
        return dataclasses.replace(PRESETS[self.preset], **self.overrides)
