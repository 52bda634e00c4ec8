"""Checks --prompt-file and the options that say how a model is used, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from .test_files import Run

TEXT = (
    b"The ferry was late again, and nobody on the quay was surprised; the wind had been against it since the morning.\n"
    * 4
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "p.txt").write_bytes(b"The ferry, the quay and the wind. " * 30)
    (tmp_path / "other.txt").write_bytes(b"Something else.")
    return tmp_path


def test_both_sides_need_the_prompt(run: Run, files: Path) -> None:
    assert run("--prompt-file", "p.txt", "--rm", "a.txt").returncode == 0  # --rm decodes and compares
    assert not (files / "a.txt").exists()
    failed = run("-d", "a.txt.llmz")
    assert failed.returncode == 3
    assert b"a.txt.llmz: made with a prompt, digest " in failed.stderr and b"--prompt-file" in failed.stderr
    other = run("decompress", "--prompt-file", "other.txt", "a.txt.llmz")
    assert other.returncode == 3 and b"another prompt than the archive's" in other.stderr
    assert not (files / "a.txt").exists()
    assert run("-t", "--prompt-file", "p.txt", "a.txt.llmz").returncode == 0
    assert run("-d", "--prompt-file", "p.txt", "a.txt.llmz").returncode == 0
    assert (files / "a.txt").read_bytes() == TEXT
    listed = run("-l", "a.txt.llmz")
    assert listed.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt-file", "absent", "a.txt"], "--prompt-file absent: No such file"),
        (["--prompt-file", ".", "a.txt"], "--prompt-file .: Is a directory"),
        (["--prompt-file", "/dev/null", "a.txt"], "must have 1 to"),
        (["--rows", "0", "a.txt"], "rows must be 1 to 4,096, not 0"),
        (["--overlap", "9", "--context", "9", "a.txt"], "the overlap must be below the context of 9"),
        (["--engine", "quantum", "a.txt"], "quantum"),
        (["--dtype", "int3", "a.txt"], "int3"),
    ],
)
def test_usage_errors(run: Run, files: Path, arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr.decode()
    assert not (files / "a.txt.llmz").exists()
