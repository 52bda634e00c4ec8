"""README.md and the pages of docs/ are true: links lead somewhere, tables and pictures agree, examples run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llmzip
from llmzip.codec.levels import level_plan
from llmzip.settings import CompressSettings

_ROOT = Path(__file__).parents[2]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_DOCUMENTS = sorted([_ROOT / "README.md", *(_ROOT / "docs").glob("*.md")])
_LEVEL_ROW = re.compile(
    r"^\| `?-(\d)`? \| [^|]+ \| ([\d.]+) \| ([\d.]+)(?: KB/s)? \| ([\d.]+)(?: KB/s)? \|$", re.MULTILINE
)


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _README, re.DOTALL)


def _anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and Python-Markdown make them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"\s", "-", heading) for heading in plain} | {re.sub(r"[-\s]+", "-", heading) for heading in plain}


# -- what runs -------------------------------------------------------------------------------------------------------


def test_python_examples_run(tmp_path):
    for block in _blocks("python"):
        subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)


def test_outputs_are_those_of_the_commands(tmp_path):
    """Runs the lines of the console block in order, on the text that README.md names."""
    (block,) = _blocks("console")
    (tmp_path / "notes.txt").write_bytes((_ROOT / "corpora" / "prose-en.txt").read_bytes())
    (tmp_path / "notes").mkdir()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "llmzip").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llmzip "$@"\n')
    (programs / "llmzip").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLMZIP_")} | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])),
    }
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert len(commands) == 5
    for line, output in commands:
        command = re.sub(r"\s+#\s.*", "", line)
        if command.startswith("tar ") and b"GNU" not in subprocess.check_output(["tar", "--version"]):
            continue  # another tar has no -I
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120
        )
        assert done.stdout.decode().rstrip("\n") == output.rstrip("\n"), command


def test_make_targets_exist():
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", _README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_only_make_site_installs_the_packages_of_the_documentation():
    installs = re.findall(r'-e "?\.(\S*)', (_ROOT / "Makefile").read_text(encoding="utf-8"))
    assert installs and not any("docs" in extras for extras in installs)
    extra = re.search(r"^docs = \[\n(.*?)^\]", (_ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE | re.DOTALL)[
        1
    ]
    packages = re.findall(r'^ *("[^"]+")', extra, re.MULTILINE)
    done = subprocess.run(["make", "-n", "-B", "site"], cwd=_ROOT, check=True, capture_output=True, text=True)
    assert packages and f"-c constraints.txt {' '.join(packages)}\n" in done.stdout


def test_ci_runs_the_readmes_test_command():
    assert "make test" in _README
    assert "make test" in (_ROOT / ".ci" / "run").read_text(encoding="utf-8")


# -- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:src|srcset)="([^"]+)"', prose)
    for target in targets:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file.read_text(encoding="utf-8")), target


def test_every_page_is_in_the_navigation_of_the_site():
    pages = re.findall(r": ([\w-]+\.md)$", (_ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(pages) == sorted(path.name for path in (_ROOT / "docs").glob("*.md"))


# -- tables and pictures ---------------------------------------------------------------------------------------------


def test_level_table():
    table = re.findall(
        r"^\| -(\d) \| ([\d,]+) \| ([\d,]+) \|", (_ROOT / "docs" / "levels.md").read_text("utf-8"), re.MULTILINE
    )
    assert [int(level) for level, _, _ in table] == list(range(1, 10))

    class Engine:
        context, stepwise = 512, False

        def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
            return rows

    for level, most, fewest in table:
        least = int(fewest.replace(",", ""))
        for num_tokens, rows in ((1 << 21, int(most.replace(",", ""))), (2 * least, 2), (2 * least - 1, 1)):
            assert level_plan(int(level), num_tokens, Engine(), CompressSettings())[0].num_rows == rows


def test_levels_of_the_readme_are_those_that_were_measured():
    measured = {row[0]: row for row in _LEVEL_ROW.findall((_ROOT / "docs" / "speed.md").read_text(encoding="utf-8"))}
    shown = _LEVEL_ROW.findall(_README)
    assert [row[0] for row in shown] == ["1", "3", "6", "9"]
    assert shown == [measured[row[0]] for row in shown]


def test_results_of_the_readme_are_those_of_the_benchmarks():
    document = (_ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (\w[^|]*) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| - \|.*\| (.*?/s) \| (.*?/s) \|", document, re.M
    )
    measured = {re.sub(r" --(?:long|lgwin)=\d+", "", row[0]): " | ".join(row[1:]) for row in rows}
    table = _README.partition("<!-- results: begin -->\n")[2].partition("<!-- results: end -->")[0].splitlines()[2:]
    assert len(table) == 6
    for line in table:
        name, figures = line.strip("| ").split(" | ", 1)
        assert measured[name] == figures, name
    original = re.search(r"^\| all 22 \| ([\d,]+) \|", document, re.MULTILINE)[1]
    assert f"Canterbury corpora, {original} bytes" in _README


def test_the_picture_is_drawn_from_the_table(tmp_path):
    subprocess.run([sys.executable, _ROOT / "tools" / "picture.py", "--output", tmp_path], check=True)
    for theme in ("light", "dark"):
        made, kept = (folder / f"size-{theme}.svg" for folder in (tmp_path, _ROOT / "docs"))
        assert made.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8"), "run make picture"
    alternative = re.search(r'alt="([^"]+)"', _README)[1]
    for name, size in re.findall(r"(llmzip|bzip2|gzip) (?:takes )?([\d,]+\d)", alternative):
        assert re.search(rf"^\| {name} [^|]*\| {size} \|", _README, re.MULTILINE), name


def test_the_picture_needs_a_table(tmp_path):
    (tmp_path / "README.md").write_text("no table\n")
    done = subprocess.run(
        [sys.executable, _ROOT / "tools" / "picture.py", tmp_path / "README.md", "--output", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "no table of results" in done.stderr and not list(tmp_path.glob("*.svg"))


def test_version_is_in_the_changelog():
    assert f"## {llmzip.__version__}" in (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
