"""llmzip: lossless text compression with a language model and a range coder. Importing it loads no torch.

Functions and classes are imported when they are first used, so that a program that only reads headers, as `llmzip -l`
does, does not pay for the rest.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import (
    CorruptError,
    EngineError,
    FormatError,
    LLMZipError,
    ModelError,
    ModelMismatchError,
    ModelNotFoundError,
    ModelUnsupportedError,
    PerformanceWarning,
    ResourceError,
    SettingsError,
    TokenizerError,
    TruncatedError,
)

if TYPE_CHECKING:
    from .api.file import LLMZipFile, open
    from .api.incremental import Compressor, Decompressor
    from .api.oneshot import compress, decompress, info
    from .codec.info import ArchiveInfo

__all__ = [
    "ArchiveInfo",
    "Compressor",
    "CorruptError",
    "Decompressor",
    "EngineError",
    "FormatError",
    "LLMZipError",
    "LLMZipFile",
    "ModelError",
    "ModelMismatchError",
    "ModelNotFoundError",
    "ModelUnsupportedError",
    "PerformanceWarning",
    "ResourceError",
    "SettingsError",
    "TokenizerError",
    "TruncatedError",
    "__version__",
    "compress",
    "decompress",
    "info",
    "open",
]

_PLACES = {
    "ArchiveInfo": "codec.info",
    "Compressor": "api.incremental",
    "Decompressor": "api.incremental",
    "LLMZipFile": "api.file",
    "compress": "api.oneshot",
    "decompress": "api.oneshot",
    "info": "api.oneshot",
    "open": "api.file",
}
"""Public name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, those too that were not used yet."""
    return sorted({*globals(), *__all__})
