"""Checks the charts of the documents: they show the tables beside them, and no label covers another one."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import llmzip
from llmzip.bench import chart

ROOT = Path(llmzip.__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not installed")
CASES = [("levels", "speed.md", 9), ("mixer", "log.md", 7)]


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of benchmarks/."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for other in ("speed", "ratios", name):
        monkeypatch.delitem(sys.modules, other, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize(("name", "document", "count"), CASES)
def test_charts_are_drawn_from_the_tables(
    name: str, document: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    drawing = script(name, monkeypatch)
    boxes: list[list[Any]] = []
    place_labels = chart.place_labels

    def watched(figure: Any, axes: Any, labels: Any, joined: Any) -> None:
        place_labels(figure, axes, labels, joined)
        assert len(labels) == count
        boxes.append([text.get_window_extent() for text in axes.texts])

    monkeypatch.setattr(chart, "place_labels", watched)
    drawing.draw(drawing.recorded(ROOT / "docs" / document), tmp_path / "made.svg")
    made, kept = ((folder / file).read_text("utf-8") for folder, file in (
        (tmp_path, "made.svg"), (ROOT / "docs", f"{name}.svg")
    ))  # fmt: skip
    assert len(boxes) == 2
    for own in boxes:
        assert len(own) == count and not any(one.overlaps(two) for one, two in itertools.combinations(own, 2))
    # Versions of matplotlib draw differently; all texts are in comments.
    assert re.findall("<!-- (.*?) -->", made) == re.findall("<!-- (.*?) -->", kept), (
        f"{name}.py --redraw docs/{document}"
    )
    for picture in (made, kept):
        assert "@media (prefers-color-scheme: dark)" in picture and "fill: #ffffff" not in picture
