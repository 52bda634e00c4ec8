"""What a caller may choose, checked and typed; knows no format, no model and no engine."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .errors import SettingsError

DEFAULT_LEVEL = 6
MIN_LEVEL, MAX_LEVEL = 1, 9
DEFAULT_MODEL = "default"
USUAL_CONTEXT = 1024
"""Tokens that a checkpoint is run with unless more is asked for."""
DEVICES = ("auto", "cpu", "cuda")


ARITHMETICS = ("exact", "float")
DTYPES = ("float32", "bfloat16", "float16")


def check_type(name: str, value: object, *types: type, optional: bool = False) -> None:
    """Refuses an argument of a wrong type by its name; True and False are no numbers here.

    Args:
        optional: None will do.

    Raises:
        TypeError: `value` is of none of `types`.
    """
    if optional and value is None:
        return
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        wanted = " or ".join("a path" if kind is os.PathLike else kind.__name__ for kind in types)
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


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
        check_type("device", self.device, str)
        for name in ("threads", "batch_tokens"):
            check_type(name, getattr(self, name), int, optional=True)
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
        model: name of an embedded model, a folder with a Hugging Face checkpoint, or a model of the Hub that is here.
        engine: where the model runs.
        arithmetic: "exact", or "float" for models that cannot run exactly: their archives decode only on the same
            hardware with the same software.
        dtype: of the float engine, one of DTYPES.
        prompt: a text that whoever decompresses has too; model and mixer read it first.
        context: most positions that a user's model sees; None for 1,024 or what it was made for.
        rows: of each frame, None for what level and length ask for.
        overlap: positions that a new context begins with; None for what the level asks for.
        window_bits: cut the text into windows of so many bits each, 16 to 65,536; None for no windows.
        model_reset: each window begins with an empty context, and so decodes alone.
    """

    level: int = DEFAULT_LEVEL
    model: str | os.PathLike[str] = DEFAULT_MODEL
    engine: EngineSettings = EngineSettings()
    arithmetic: str = "exact"
    dtype: str = "float32"
    prompt: bytes = b""
    context: int | None = None
    rows: int | None = None
    overlap: int | None = None
    window_bits: int | None = None
    model_reset: bool = True

    def __post_init__(self) -> None:
        check_type("level", self.level, int)
        check_type("model", self.model, str, os.PathLike)
        check_type("arithmetic", self.arithmetic, str)
        check_type("dtype", self.dtype, str)
        for name in ("context", "rows", "overlap", "window_bits"):
            check_type(name, getattr(self, name), int, optional=True)
        if not MIN_LEVEL <= self.level <= MAX_LEVEL:
            raise SettingsError(f"level must be {MIN_LEVEL} to {MAX_LEVEL}, not {self.level!r}")
        if self.arithmetic not in ARITHMETICS or self.dtype not in DTYPES:
            raise SettingsError(f"engine {self.arithmetic!r} or dtype {self.dtype!r} is unknown")
        limits = {
            "context": (self.context, 2, 1 << 17),
            "rows": (self.rows, 1, 4096),
            "overlap": (self.overlap, 1, 1 << 17),
            "window_bits": (self.window_bits, 16, 1 << 16),
        }
        for name, (value, low, high) in limits.items():
            if value is not None and not low <= value <= high:
                raise SettingsError(f"{name} must be {low} to {high:,}, not {value:,}")
        if self.window_bits is not None:
            others = {"a prompt": self.prompt, "rows": self.rows, "an overlap": self.overlap}
            chosen = [name for name, value in others.items() if value]
            if self.arithmetic != "exact":
                chosen.append("the float engine")
            if chosen:
                raise SettingsError(f"windows cannot be had with {chosen[0]}")
        elif not self.model_reset:
            raise SettingsError("only windows can do without a new context for each (--window-bits)")
        if self.context is not None and self.overlap is not None and self.overlap >= self.context:
            raise SettingsError(f"the overlap must be below the context of {self.context:,}, not {self.overlap:,}")


@dataclass(frozen=True)
class DecompressSettings:
    """How to decompress: what the archive says, and where the model runs.

    Attributes:
        model: a folder with the checkpoint the archive names, if it is not an embedded one.
        engine: where the model runs.
        prompt: the text that the archive was made with, if there was one.
    """

    model: str | os.PathLike[str] | None = None
    engine: EngineSettings = EngineSettings()
    prompt: bytes = b""

    def __post_init__(self) -> None:
        check_type("model", self.model, str, os.PathLike, optional=True)
