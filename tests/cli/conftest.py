"""What the command line tests share: real processes, and inputs that need no model.

Random bytes are stored as they are, so a run with them takes a tenth of a second; a text needs the model, which takes
seconds to load. Tests use the text only where the model matters.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmzip.errors
from llmzip.cli.main import main

ROOT = Path(llmzip.errors.__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "llmzip"]

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def environment(**more: str) -> dict[str, str]:
    """The environment of a run: nothing of the user's settings, a fixed width for the help."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLMZIP_", "_LLMZIP"))}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "COLUMNS": "80", "PYTHONWARNINGS": "", **more}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs llmzip in the test's folder; returns the finished process with its output as bytes."""

    def start(
        *arguments: str | bytes | Path, env: dict[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment(**(env or {})),
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
            **options,
        )

    return start


@pytest.fixture
def call_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Any]:
    """Makes a function that runs llmzip in this process and the test's folder: exit code, output, messages.

    Its arguments: the files that there are, and a command; with one, the model is `small` unless said otherwise, and
    the output is text.
    """

    def make(files: dict[str, bytes], command: str | None = None) -> Callable[..., Any]:
        monkeypatch.chdir(tmp_path)
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)

        def run(*arguments: str) -> tuple[int, Any, str]:
            capfdbinary.readouterr()
            model = () if command is None or "-m" in arguments else ("-m", "small")
            code = main([*([command] if command else []), *model, *arguments])
            out, err = capfdbinary.readouterr()
            return code, out if command is None else out.decode(), err.decode()

        return run

    return make


@pytest.fixture
def noise() -> bytes:
    """4 KB that no method can compress."""
    return random.Random(1).randbytes(4096)


@pytest.fixture
def noise_file(tmp_path: Path, noise: bytes) -> Path:
    """The noise as a file with a mode and a time of its own."""
    path = tmp_path / "noise.bin"
    path.write_bytes(noise)
    path.chmod(0o640)
    os.utime(path, ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))
    return path


@pytest.fixture
def archive(noise_file: Path, run: Run) -> Path:
    """The noise compressed; the noise itself is gone."""
    assert run(noise_file).returncode == 0
    noise_file.unlink()
    return noise_file.with_name("noise.bin.llmz")


def leftovers(folder: Path) -> list[str]:
    """Names of temporary files."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".llmzip-")]
