"""Programs of their own, for tools that call zcat, zgrep and gunzip by one name without options."""

from __future__ import annotations

from collections.abc import Sequence

from .commands import archive
from .main import run


def llmzcat(argv: Sequence[str] | None = None) -> int:
    """Runs the program llmzcat: archives to the standard output.

    Args:
        argv: arguments without the program's name; None for those of the process, which then ends.

    Returns:
        the exit status.
    """
    return run(archive.zcat_command, "llmzcat", argv)


def llmzgrep(argv: Sequence[str] | None = None) -> int:
    """Runs the program llmzgrep: `llmzip grep`. Arguments and result are those of `llmzcat`."""
    from .commands.grep import grep_command  # here, so that the other programs need not import it

    return run(grep_command, "llmzgrep", argv)


def unllmzip(argv: Sequence[str] | None = None) -> int:
    """Runs the program unllmzip: archives to files. Arguments and result are those of `llmzcat`."""
    return run(archive.unzip_command, "unllmzip", argv)
