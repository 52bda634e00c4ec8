"""The exception tree and the exit codes. Imports nothing.

LLMZipError(Exception)                      exit 1
|-- FormatError                             exit 1   not an llmzip archive, or one of another format version
|-- CorruptError                            exit 4   damaged archive
|   `-- TruncatedError(EOFError)            exit 4   archive that ends too early
|-- ModelError                              exit 3
|   |-- ModelNotFoundError                  exit 3   the model is not on this machine
|   |-- ModelMismatchError                  exit 3   the model is not the one the archive names
|   `-- ModelUnsupportedError               exit 3   a checkpoint that the exact engine cannot run
|-- EngineError                             exit 1   this machine cannot compute the exact arithmetic
|-- ResourceError                           exit 1   not enough memory, or too much output
|-- TokenizerError                          exit 3   a tokenizer that cannot be used
`-- SettingsError(ValueError)               exit 2   an option out of range

PerformanceWarning(RuntimeWarning)          the results are right, but took several times longer than they could
"""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_MODEL = 3
EXIT_DAMAGED = 4


class LLMZipError(Exception):
    """Every error that llmzip raises on purpose; its text is one line that says what to do."""

    exit_code = EXIT_FAILED


class FormatError(LLMZipError):
    """The data is not an llmzip archive, or is of another version of the format (docs/format.md)."""


class CorruptError(LLMZipError):
    """A checksum, a length or a range in the archive is wrong: the data was damaged."""

    exit_code = EXIT_DAMAGED


class TruncatedError(CorruptError, EOFError):
    """The archive ends before its last frame does."""


class ModelError(LLMZipError):
    """Something is wrong with the language model, not with the archive."""

    exit_code = EXIT_MODEL


class ModelNotFoundError(ModelError):
    """The model is not on this machine."""


class ModelMismatchError(ModelError):
    """A model was found, but its digest is not the one the archive was made with."""


class ModelUnsupportedError(ModelError):
    """The checkpoint has a shape or a value that the exact engine cannot run."""


class EngineError(LLMZipError):
    """This machine cannot compute the exact arithmetic (docs/numerics.md): it needs another device, build or coder."""


class ResourceError(LLMZipError):
    """More memory is needed than there is, or more output than was allowed."""


class TokenizerError(LLMZipError):
    """The tokenizer cannot be read, is not supported or does not fit the model."""

    exit_code = EXIT_MODEL


class SettingsError(LLMZipError, ValueError):
    """A setting is out of its documented range."""

    exit_code = EXIT_USAGE


class PerformanceWarning(RuntimeWarning):
    """llmzip gives the right results, but several times slower than it could; the text says what to do."""
