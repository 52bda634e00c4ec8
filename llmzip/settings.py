"""What a caller may choose, checked and typed; knows no format, no model and no engine."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .errors import SettingsError

DEFAULT_LEVEL = 6
MIN_LEVEL, MAX_LEVEL = 1, 9
DEFAULT_MODEL = "default"
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class EngineSettings:
    """Where the model runs. Nothing here changes a single bit of an archive or of its text.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads of the engine; 0 means all cores, None leaves torch's setting alone.
        batch_tokens: upper bound of the tokens in one prefill call; None chooses by the model's size.
    """

    device: str = "auto"
    threads: int | None = None
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.device not in DEVICES and not (self.device.startswith("cuda:") and self.device[5:].isdigit()):
            raise SettingsError(f"device {self.device!r} is not one of auto, cpu, cuda, cuda:N")
        if self.threads is not None and not 0 <= self.threads <= 4096:
            raise SettingsError(f"threads must be 0 (all cores) to 4096, not {self.threads}")
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise SettingsError(f"batch_tokens must be at least 1, not {self.batch_tokens}")


@dataclass(frozen=True)
class CompressSettings:
    """How to compress.

    Attributes:
        level: 1 (fastest; the model alone) to 9 (smallest); from 2 on with the mixer.
        model: name of an embedded model, or a folder with a Hugging Face checkpoint.
        engine: where the model runs.
    """

    level: int = DEFAULT_LEVEL
    model: str | os.PathLike[str] = DEFAULT_MODEL
    engine: EngineSettings = EngineSettings()

    def __post_init__(self) -> None:
        if type(self.level) is not int or not MIN_LEVEL <= self.level <= MAX_LEVEL:
            raise SettingsError(f"level must be {MIN_LEVEL} to {MAX_LEVEL}, not {self.level!r}")


@dataclass(frozen=True)
class DecompressSettings:
    """How to decompress: what the archive says, and where the model runs.

    Attributes:
        model: a folder with the checkpoint the archive names, if it is not an embedded one.
        engine: where the model runs.
    """

    model: str | os.PathLike[str] | None = None
    engine: EngineSettings = EngineSettings()
