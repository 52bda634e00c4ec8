"""Checks what a process of llmzip's own does before numpy is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmzip.system import process

NAME = "OPENBLAS_NUM_THREADS"


def test_numpy_gets_one_thread_and_the_variable_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    with process.one_thread_for_numpy():
        assert os.environ[NAME] == "1"
    assert NAME not in os.environ
    with pytest.raises(ImportError), process.one_thread_for_numpy():
        raise ImportError
    assert NAME not in os.environ


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "3")
    with process.one_thread_for_numpy():
        assert os.environ[NAME] == "3"
    assert os.environ[NAME] == "3"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list threads")
def test_importing_numpy_inside_creates_no_threads() -> None:
    code = (
        "import os\n"
        "from llmzip.system import process\n"
        "with process.one_thread_for_numpy():\n"
        "    import numpy\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    root = str(Path(process.__file__).parents[2])
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60, env=environment
    )
    assert result.stdout == "1\n"
