"""The files of a benchmark: finds them in folders and pipes, and keeps results from replacing them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..system.filenames import FileProblem, input_name, is_same_file
from ..system.fileops import open_source
from ..system.process import STDIN

WRITTEN = ("results.json", "results.csv", "results.md", "chart.png", "chart.svg", "results.jsonl")
"""Names of the files that a run writes into its folder."""

_READ_BYTES = 1 << 20  # 1 MiB
_TEXT_BYTES_PER_NUL = 20

OnProblem = Callable[[Path, OSError], None]
"""Called with a file that cannot be measured, and why."""


def find_files(
    names: Sequence[str], copies: Path, *, max_bytes: int | None, text_only: bool, on_problem: OnProblem
) -> list[tuple[Path, str]]:
    """Returns the files to measure and the names to show for them, each file once.

    Args:
        names: files, folders, pipes, and - for the standard input.
        copies: folder for the content of pipes, which can be read only once.
        max_bytes: size of the largest file to measure; None for no limit.
        text_only: whether to leave out binary files.
        on_problem: called for each file that cannot be read.
    """
    files: dict[Path, tuple[Path, str]] = {}
    for number, given in enumerate(names):
        name = STDIN if input_name(given) is None else given
        root = Path(given)
        if name == STDIN or root.is_fifo():
            root = copies / f"stream-{number}"
            try:
                _copy(given, root)
            except OSError as error:
                on_problem(Path(name), error)
                continue
        for path in _below(root, on_problem):
            try:
                if max_bytes is not None and path.stat().st_size > max_bytes:
                    continue
                if text_only and not _is_text(path):
                    continue
                # A file keeps the name that was given, as in every command; one in a folder adds the folder's name.
                shown = f"{root.resolve().name}/{path.relative_to(root)}" if root.is_dir() else name
                files.setdefault(path.resolve(), (path, shown))
            except OSError as error:
                on_problem(path, error)
    shown_names = [name for _, name in files.values()]
    return [(path, name if shown_names.count(name) == 1 else str(path)) for path, name in files.values()]


def _copy(name: str, path: Path) -> None:
    with open_source(input_name(name)) as source, path.open("wb") as copy:
        shutil.copyfileobj(source.file, copy)


def check_results(folder: Path, files: Sequence[tuple[Path, str]]) -> None:
    """Refuses a folder for results where they would replace a text that will be measured.

    Raises:
        FileProblem: naming the text.
    """
    for path, name in files:
        if any(is_same_file(str(path), str(folder / written)) for written in WRITTEN):
            raise FileProblem(f"{name}: would be overwritten by the results; use another folder with --output")


def _below(root: Path, on_problem: OnProblem) -> Iterator[Path]:
    """Yields the file itself, or all files below a folder, without hidden ones."""
    if not root.is_dir():
        if root.exists() and not root.is_file():
            on_problem(root, OSError(0, "not a regular file"))
        elif not root.exists():
            on_problem(root, FileNotFoundError(0, "No such file or directory"))
        else:
            yield root
        return

    def failed(error: OSError) -> None:
        on_problem(Path(error.filename or root), error)

    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _is_text(path: Path) -> bool:
    """Returns whether fewer than one byte in twenty is NUL: texts of the Calgary corpus contain a few."""
    with path.open("rb") as file:
        num_nuls = sum(data.count(b"\0") for data in iter(lambda: file.read(_READ_BYTES), b""))
    return _TEXT_BYTES_PER_NUL * num_nuls < max(1, path.stat().st_size)
