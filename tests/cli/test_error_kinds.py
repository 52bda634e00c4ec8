"""Checks that `kind` in the JSON of errors is one of the documented names, whichever command tells it."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path

import pytest

from llmzip import errors
from llmzip.cli.outcomes import OtherFileProblem
from llmzip.system.failures import ERROR_KINDS, error_kind
from llmzip.system.fileops import FileProblem

from .conftest import ROOT, Run

DOCUMENT = ROOT / "docs" / "cli.md"

COMMANDS = {
    "compress": ("--report", "report", "gone", "folder"),
    "decompress": ("-d", "--report", "report", "foreign.llmz", "cut.llmz", "name", "gone.llmz"),
    "output elsewhere": ("--report", "report", "-o", "no/such/folder", "text"),
    "test": ("-t", "--json", "foreign.llmz", "cut.llmz", "gone.llmz"),
    "list": ("-l", "--json", "foreign.llmz", "cut.llmz", "gone.llmz", "folder"),
    "entropy": ("entropy", "--json", "-m", "small", "empty", "cut.llmz", "gone"),
    "estimate": ("estimate", "--json", "-m", "small", "cut.llmz", "gone", "folder"),
    "distance": ("distance", "--json", "-m", "small", "empty", "cut.llmz", "gone"),
}


@pytest.fixture
def files(archive: Path, tmp_path: Path) -> None:
    """What each command fails with."""
    (tmp_path / "cut.llmz").write_bytes(archive.read_bytes()[:-9])
    for name, data in {
        "foreign.llmz": b"a letter to a friend",
        "empty": b"",
        "name": b"x",
        "text": b"a text\n",
    }.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("files")
def test_kinds_are_documented_names(command: str, run: Run, tmp_path: Path) -> None:
    done = run(*COMMANDS[command])
    assert done.returncode in (1, 2, 3, 4), done.stderr
    told = (tmp_path / "report").read_bytes() if "--report" in COMMANDS[command] else done.stdout
    kinds = [row["error"]["kind"] for row in map(json.loads, told.splitlines()) if row.get("error")]
    assert kinds and set(kinds) <= ERROR_KINDS, done.stderr
    assert not any(kind.startswith("_") or kind == "OtherFileProblem" for kind in kinds)


class _Private(errors.TruncatedError):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_Private(), "TruncatedError"), (OtherFileProblem("a", "b"), "FileProblem"), (FileProblem(), "FileProblem"),
        (FileNotFoundError(), "FileNotFoundError"), (OSError(5, "x"), "OSError"), (MemoryError(), "MemoryError"),
        (ModuleNotFoundError(), "ImportError"), (ZeroDivisionError(), "InternalError"),
        (errors.SettingsError(), "SettingsError"), (RuntimeError("two"), "InternalError"),
    ],
    ids=repr,
)  # fmt: skip
def test_private_classes_are_told_by_what_they_are(error: BaseException, kind: str) -> None:
    assert error_kind(error) == kind


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the documents are not installed")
def test_the_document_lists_them() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("`kind` is one of these names")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`([A-Z]\w+)`", text.partition("\n\n")[2].partition("\n\n")[0]))
    assert listed <= ERROR_KINDS
    assert {name for name in ERROR_KINDS if not _is_the_systems(name)} <= listed


def _is_the_systems(name: str) -> bool:
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, OSError)


@pytest.mark.parametrize("arguments", [["text"], ["-d", "x.llmz"], ["entropy", "text"], ["train", "-o", "m", "text"]])
def test_a_misspelt_choice_of_kernels_is_a_usage_error(arguments: list[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"a text\n")
    done = run(*arguments, env={"LLMZIP_KERNELS": "bogus"})
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith("llmzip: LLMZIP_KERNELS: 'bogus' is none of none, portable, avx2")
    assert done.stderr.count(b"\n") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    assert run("--help", env={"LLMZIP_KERNELS": "bogus"}).returncode == 0
