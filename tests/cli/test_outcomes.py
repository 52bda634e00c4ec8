"""How errors become exit statuses and lines."""

from __future__ import annotations

from typing import Any

import pytest

from llmzip import errors
from llmzip.cli.messages import Messages
from llmzip.cli.outcomes import OtherFileProblem, Outcomes, overall_exit_status
from llmzip.system.failures import explain
from llmzip.system.filenames import FileProblem
from llmzip.system.streams import OutputError


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


class Heard(Messages):
    """Messages that are kept instead of written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str | None, str]] = []

    def error(self, name: str | None, reason: str, error: BaseException | None = None) -> None:
        self.lines.append((name, reason))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def outcomes(heard: Heard, records: list[dict[str, Any]]) -> Outcomes:
    def record(name: str | None, /, **facts: Any) -> None:
        records.append({"file": name, **facts})

    return Outcomes(heard, record)


def test_a_failure_is_a_line_a_record_and_an_exit_status(
    outcomes: Outcomes, heard: Heard, records: list[dict[str, Any]]
) -> None:
    with outcomes.of_file("fine"):
        pass
    assert (outcomes.exit_status, heard.lines, records) == (0, [], [])
    with outcomes.of_file(None, model="small"):
        raise errors.TruncatedError("cut")
    assert heard.lines == [("(stdin)", "cut")]
    assert records == [
        {"file": None, "model": "small", "error": {"code": 4, "kind": "TruncatedError", "message": "cut"}}
    ]
    assert outcomes.exit_status == 4
    with outcomes.of_run():
        raise errors.ModelNotFoundError("gone")
    assert heard.lines[1:] == [(None, "gone")] and records[1]["file"] is None
    assert outcomes.exit_status == 1


def test_a_problem_of_another_file_names_that_file(
    outcomes: Outcomes, heard: Heard, records: list[dict[str, Any]]
) -> None:
    with outcomes.of_file("source"):
        raise OtherFileProblem("target", "exists")
    assert heard.lines == [("target", "exists")]
    assert records[0]["file"] == "source" and records[0]["error"]["kind"] == "FileProblem"


@pytest.mark.parametrize("error", [BrokenPipeError(), OutputError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_ends_the_run_is_no_outcome(error: BaseException, outcomes: Outcomes, heard: Heard) -> None:
    with pytest.raises(type(error)), outcomes.of_file("a"):
        raise error
    assert (outcomes.exit_status, heard.lines) == (0, [])
