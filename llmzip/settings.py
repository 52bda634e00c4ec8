"""Validated settings for compressing and decompressing. Knows no format, model or engine."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .errors import SettingsError

MIN_LEVEL = 1
MAX_LEVEL = 9
DEFAULT_LEVEL = 6
DEFAULT_MODEL = "default"
USUAL_CONTEXT = 2048
"""Context of a checkpoint in tokens, unless another one is asked for."""
DEVICES = ("auto", "cpu", "cuda")
ARITHMETICS = ("exact", "float")
DTYPES = ("float32", "bfloat16", "float16")

MIN_RECOVERY = 0.1
MAX_RECOVERY = 100
"""Bounds of the share of an archive that its recovery data can mend, in percent."""

_MAX_THREADS = 4096
_MAX_ROWS = 4096  # of a frame
_MAX_CONTEXT = 1 << 17  # 131,072 tokens
MAX_FRAME_BYTES = 1 << 21
"""Text of a frame whose size the user chooses, 2 MiB: what a model may have in one."""


def check_type(name: str, value: object, *types: type, optional: bool = False) -> None:
    """Refuses an argument of a wrong type; True and False do not count as integers.

    Args:
        name: name of the argument, for the message.
        value: the argument.
        types: types that it may have.
        optional: whether None is allowed.

    Raises:
        TypeError: `value` has none of the types.
    """
    if optional and value is None:
        return
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        wanted = " or ".join("a path" if kind is os.PathLike else kind.__name__ for kind in types)
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


@dataclass(frozen=True)
class EngineSettings:
    """Where the model runs. Nothing here changes a single bit of an archive or its text.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads, 0 to 4,096; 0 means one for each processor. None leaves the process's number
            alone: torch's if torch was imported, else the number of cores that it may use, or OMP_NUM_THREADS if less.
        batch_tokens: maximum number of tokens in one prefill call; None chooses by the model's size.
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
        if self.threads is not None and not 0 <= self.threads <= _MAX_THREADS:
            raise SettingsError(f"threads must be 0 (all cores) to {_MAX_THREADS}, not {self.threads}")
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise SettingsError(f"batch_tokens must be at least 1, not {self.batch_tokens}")


@dataclass(frozen=True)
class CompressSettings:
    """Validated settings for compressing.

    Attributes:
        level: 1 (fastest; the model alone) to 9 (smallest); the mixer runs from 2 on.
        model: name of an embedded model, folder with a Hugging Face checkpoint, or name of a Hub model that is cached.
        engine: where the model runs.
        arithmetic: "exact", or "float" for models that cannot run exactly, whose archives decode only on the same
            hardware with the same software.
        dtype: number format of the float engine, one of DTYPES.
        prompt: text that the model and the mixer read first; decompressing needs the same text.
        context: tokens that a model sees, unless it is embedded, 2 to 131,072; None for 2,048, or the model's maximum
            if that is lower.
        rows: rows of each frame, 1 to 4,096; None to choose by level and length.
        overlap: tokens that a new context repeats, below the context; None to choose by level.
        window_bits: bits of each window that the text is cut into, 16 to 65,536; None for no windows.
        model_reset: whether each window begins with an empty context, so that it decodes alone.
        recovery: share of the archive in percent whose damage the recovery data after it can mend, 0.1 to 100; None
            for no recovery data.
        with_model: whether the file carries the model, so that it decodes where nobody has that.
        frame_bytes: text of each frame, up to 2 MiB; None for 2 MiB, or more where no model is used. Parts of small
            frames decode sooner, and archives of them are larger.
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
    recovery: float | None = None
    with_model: bool = False
    frame_bytes: int | None = None

    def __post_init__(self) -> None:
        check_type("level", self.level, int)
        check_type("model", self.model, str, os.PathLike)
        check_type("arithmetic", self.arithmetic, str)
        check_type("dtype", self.dtype, str)
        for name in ("context", "rows", "overlap", "window_bits", "frame_bytes"):
            check_type(name, getattr(self, name), int, optional=True)
        check_type("recovery", self.recovery, int, float, optional=True)
        if self.recovery is not None and not MIN_RECOVERY <= self.recovery <= MAX_RECOVERY:
            raise SettingsError(f"recovery must be {MIN_RECOVERY} to {MAX_RECOVERY} percent, not {self.recovery!r}")
        if not MIN_LEVEL <= self.level <= MAX_LEVEL:
            raise SettingsError(f"level must be {MIN_LEVEL} to {MAX_LEVEL}, not {self.level!r}")
        if self.arithmetic not in ARITHMETICS or self.dtype not in DTYPES:
            raise SettingsError(f"engine {self.arithmetic!r} or dtype {self.dtype!r} is unknown")
        limits = {
            "context": (self.context, 2, _MAX_CONTEXT),
            "rows": (self.rows, 1, _MAX_ROWS),
            "overlap": (self.overlap, 1, _MAX_CONTEXT),
            "window_bits": (self.window_bits, 16, 1 << 16),
            "frame_bytes": (self.frame_bytes, 1, MAX_FRAME_BYTES),
        }
        for name, (value, minimum, maximum) in limits.items():
            if value is not None and not minimum <= value <= maximum:
                raise SettingsError(f"{name} must be {minimum} to {maximum:,}, not {value:,}")
        if self.window_bits is not None:
            others = {"a prompt": self.prompt, "rows": self.rows, "an overlap": self.overlap}
            chosen = [name for name, value in others.items() if value]
            if self.arithmetic != "exact":
                chosen.append("the float engine")
            if chosen:
                raise SettingsError(f"windows cannot be combined with {chosen[0]}")
        elif not self.model_reset:
            raise SettingsError("only windows can keep the model's context (--window-bits)")
        check_type("with_model", self.with_model, bool)
        if self.with_model and (self.prompt or self.arithmetic != "exact"):
            reason = "a prompt" if self.prompt else "the float engine"
            raise SettingsError(f"--with-model cannot be combined with {reason}")
        if self.context is not None and self.overlap is not None and self.overlap >= self.context:
            raise SettingsError(f"the overlap must be below the context of {self.context:,}, not {self.overlap:,}")


@dataclass(frozen=True)
class DecompressSettings:
    """Validated settings for decompressing; the archive says the rest.

    Attributes:
        model: folder or Hub name of the model that the archive names; None if that model is embedded, stored or cached.
        engine: where the model runs.
        prompt: prompt that the archive was made with; b"" for none.
    """

    model: str | os.PathLike[str] | None = None
    engine: EngineSettings = EngineSettings()
    prompt: bytes = b""

    def __post_init__(self) -> None:
        check_type("model", self.model, str, os.PathLike, optional=True)
