"""docs/architecture.md is true: its table is that of the packages' docstrings, and every path it names exists.

`make docs` rewrites the table.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
from pathlib import Path

from test_layers import LAYERS

import llmzip

ROOT = Path(llmzip.__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- packages: begin -->\n", "<!-- packages: end -->"


def first_paragraph(name: str) -> str:
    """The first paragraph of the docstring of a package or module of llmzip, on one line."""
    folder = ROOT / "llmzip" / name
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def table() -> str:
    """The packages in the order of the layers, each with what it says about itself."""
    lines = ["| layer | package | what it is |", "|---:|---|---|"]
    for number, names in enumerate(LAYERS, 1):
        for name in names:
            path = f"llmzip/{name}/" if (ROOT / "llmzip" / name).is_dir() else f"llmzip/{name}.py"
            lines.append(f"| {number} | `{path}` | {first_paragraph(name)} |")
    return "\n".join(lines) + "\n"


def test_packages_are_described_by_their_docstrings() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    written, end, after = rest.partition(END)
    assert begin and end
    if os.environ.get("LLMZIP_UPDATE_DOCS") == "1":
        DOCUMENT.write_text(f"{before}{begin}{table()}{end}{after}", encoding="utf-8")
    else:
        assert written == table(), "run make docs"


def test_named_paths_exist() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:llmzip|tests|docs|corpora|tools|benchmarks)/[\w./]*)`", text))
    assert len(paths) > 30
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_every_package_is_named() -> None:
    packages = {path.name for path in (ROOT / "llmzip").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages - {"embedded"} <= {name for names in LAYERS for name in names}


def test_the_readme_lists_the_packages_in_the_order_of_the_layers() -> None:
    block = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .partition("those below it:\n\n```text\n")[2]
        .partition("```")[0]
    )
    rows = [re.split(" {2,}", line)[::2] for line in block.splitlines()]
    listed = [name for column in itertools.zip_longest(*rows) for name in column if name is not None]
    packages = [name for names in LAYERS for name in names if (ROOT / "llmzip" / name).is_dir()]
    assert sorted(listed) == sorted(packages)
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    assert [layer[name] for name in listed] == sorted(layer[name] for name in listed)
