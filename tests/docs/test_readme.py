"""README.md tells the truth: its Python runs, its file tree exists, its commands and its levels are the code's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import llmzip
from llmzip.codec.levels import level_plan
from llmzip.settings import CompressSettings

_ROOT = Path(__file__).parents[2]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _README, re.DOTALL)


def test_python_examples_run(tmp_path):
    for block in _blocks("python"):
        subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)


def test_make_targets_exist():
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z-]+)", _README)) - {"does"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_runs_the_readmes_test_command():
    assert "make test" in _README
    assert "make test" in (_ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_file_tree_is_complete():
    tree = _README[_README.index("```\nllmzip/") + 4 :].partition("```")[0]
    package = tree[: tree.index("\ntests/")]
    for file in sorted((_ROOT / "llmzip").glob("*.py")):
        if not file.name.startswith("_") or file.name == "__init__.py":
            assert file.name in package, file.name
    for file in sorted((_ROOT / "llmzip").glob("[emt]*/[a-z]*.py")):
        assert file.name in package, file.name
    for name in re.findall(r"[a-z_]+\.py", package):
        assert list((_ROOT / "llmzip").rglob(name)), name
    for name in re.findall(r"^([a-z]+)/", tree, re.MULTILINE):
        assert (_ROOT / name).is_dir(), name


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", _README):
        assert target.startswith("http") or (_ROOT / target).exists(), target


def test_level_table():
    table = re.findall(r"^\| -(\d) \| ([\d,]+) \| ([\d,]+) \|", _README, re.MULTILINE)
    assert [int(level) for level, _, _ in table] == list(range(1, 10))

    class Engine:
        context, stepwise = 512, False

        def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
            return rows

    for level, most, fewest in table:
        least = int(fewest.replace(",", ""))
        for num_tokens, rows in ((1 << 21, int(most.replace(",", ""))), (2 * least, 2), (2 * least - 1, 1)):
            assert level_plan(int(level), num_tokens, Engine(), CompressSettings())[0].num_rows == rows


def test_version_is_in_the_changelog():
    assert f"## {llmzip.__version__}" in (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
