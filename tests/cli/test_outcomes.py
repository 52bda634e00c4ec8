"""How errors become exit statuses and lines."""

from __future__ import annotations

import pytest

from llmzip import errors
from llmzip.cli.outcomes import explain, overall_exit_status
from llmzip.system.filenames import FileProblem


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([], 0), ([3], 3), ([3, 3], 3), ([4, 4], 4), ([3, 4], 1), ([1, 4], 1), ([1], 1)],
)
def test_overall_exit_status(codes: list[int], expected: int) -> None:
    assert overall_exit_status(codes) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.FormatError("foreign"), (1, "foreign")),
        (errors.TruncatedError("cut"), (4, "cut")),
        (errors.ModelMismatchError("other"), (3, "other")),
        (FileProblem("exists"), (1, "exists")),
        (FileNotFoundError(2, "No such file", "a"), (1, "No such file")),
        (PermissionError(13, "Permission denied", "model/config.json"), (1, "Permission denied: model/config.json")),
        (MemoryError(), (1, "not enough memory")),
        (SystemError("error without one"), (1, "not enough memory, or a library is broken (error without one)")),
        (OSError(12, "Cannot allocate memory", "lib.so"), (1, "not enough memory")),
    ],
)
def test_explain(error: Exception, expected: tuple[int, str]) -> None:
    assert explain(error, "a") == expected


def test_explain_names_the_class_of_a_bug() -> None:
    code, text = explain(ZeroDivisionError("division by zero"))
    assert code == 1
    assert text.startswith("internal error: ZeroDivisionError: division by zero; report it")
