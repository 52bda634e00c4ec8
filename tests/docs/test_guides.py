"""Runs the Python of the pages in docs/, each page as one program after the page's own command lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_commands import ROOT, Stage, _run_here, _without_comment

# The names of distance.md are not stable; ray.md starts Ray, which the tests in tests/ray_columns do.
PAGES = [
    page
    for page in sorted((ROOT / "docs").glob("*.md"))
    if "```python\n" in page.read_text(encoding="utf-8") and page.name not in ("distance.md", "ray.md")
]
pytestmark = pytest.mark.skipif(not PAGES, reason="the documents are not installed")


def test_there_are_pages_with_python() -> None:
    assert {"index.md", "python.md", "corpus.md", "tokens.md", "pandas.md", "recover.md"} <= {
        page.name for page in PAGES
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for name in ("pandas", "matplotlib"):
        if f"import {name}" in program or (name == "matplotlib" and ".plot." in program):
            pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMZIP_MODEL", "small")
    files = set(re.findall(r'"([\w-]+\.(?:csv|npy|jsonl))"', program))
    for line in re.findall(r"^\$ (llmzip .*)$", text, re.MULTILINE):
        # What the program reads, and what that is made from.
        command = _without_comment(line)
        if any(file in command for file in (*files, "-o tokens.llmz")) and "--import" not in command:
            Stage(command.replace("tokens.llmz", "")).fill()
            assert _run_here(command) == 0, command
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if page.name == "tokens.md":
        assert done.stdout == "torch.Size([4, 64]) torch.int64 True\n"
    if page.name == "recover.md":
        assert done.stdout.startswith("b'first frame\\n'\nstatus 4: frame 0: damaged")
    if page.name == "corpus.md":
        assert (tmp_path / "corpus.svg").stat().st_size > 1000 and "a.txt" in done.stdout
