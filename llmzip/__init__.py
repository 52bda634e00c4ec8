"""llmzip: lossless text compression with a language model and a range coder. Importing it loads no torch."""

from ._version import __version__
from .api.file import LLMZipFile, open
from .api.incremental import Compressor, Decompressor
from .api.oneshot import compress, decompress, info
from .codec.info import ArchiveInfo
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
