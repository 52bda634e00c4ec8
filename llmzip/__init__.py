"""llmzip: lossless text compression with a language model and a range coder. Importing it loads no torch."""

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
from .file import LLMZipFile, open
from .incremental import Compressor, Decompressor
from .listing import ArchiveInfo
from .oneshot import compress, decompress, info

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
