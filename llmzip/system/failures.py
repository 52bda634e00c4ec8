"""What an error means to a user: an exit status, a reason in one line, and a kind for programs."""

from __future__ import annotations

import builtins
import errno
import os

from .. import errors
from ..errors import EXIT_FAILED, LLMZipError
from .filenames import FileProblem

_INTERNAL = "InternalError"
ERROR_KINDS = frozenset(
    {"FileProblem", "MemoryError", "ImportError", _INTERNAL}
    | {kind.__name__ for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LLMZipError)}
    | {kind.__name__ for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, OSError)}
)
"""Values of `kind` in `error`: the library's errors; FileProblem for a file that is left alone; OSError and its
subclasses; MemoryError; ImportError for a broken library; InternalError for a bug."""


def explain(error: BaseException, name: str | None = None) -> tuple[int, str]:
    """Returns the exit status of an error and its reason in one line.

    Args:
        error: what was raised.
        name: name of the file that the line begins with; any other file that the error is about is named too.
    """
    if isinstance(error, LLMZipError):
        return error.exit_code, str(error)
    if isinstance(error, FileProblem):
        return EXIT_FAILED, str(error)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return EXIT_FAILED, "not enough memory"
    if isinstance(error, SystemError):  # raised by native code that did not check an allocation
        return EXIT_FAILED, f"not enough memory, or a library is broken ({error})"
    if isinstance(error, OSError) and error.strerror:
        is_about_another = name is not None and error.filename is not None and os.fsdecode(error.filename) != name
        return EXIT_FAILED, error.strerror + (f": {os.fsdecode(error.filename)}" if is_about_another else "")
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return EXIT_FAILED, "not enough memory for another thread, or too many processes; --threads 1 needs less"
    if isinstance(error, (ImportError, OSError)):
        return EXIT_FAILED, _explain_library(error)
    return EXIT_FAILED, f"internal error: {type(error).__name__}: {error}; report it with the output of --debug"


def _explain_library(error: BaseException) -> str:
    """Returns why a library could not be loaded."""
    while error.__cause__ is not None:  # numpy's own text fills a page
        error = error.__cause__
    text = str(error).strip().partition("\n")[0]
    if any(words in text for words in ("failed to map", "cannot allocate", "Cannot allocate")):
        return f"not enough memory to load a library ({text})"
    return f"a library that llmzip needs is missing or broken ({text}); reinstall llmzip"


def error_kind(error: BaseException) -> str:
    """Returns the most specific of ERROR_KINDS that an error belongs to."""
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERROR_KINDS), _INTERNAL)
