"""Runs the examples."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llmzip

ROOT = Path(llmzip.__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not installed")
def test_classifying_by_distance() -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "classify_by_distance.py", "--model", "small", "--show"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("24 texts, 4 topics, model small\n")
    right = {name: int(count) for name, count in re.findall(r"^(\w+) .*?(\d+) of 24 right", done.stdout, re.MULTILINE)}
    # By chance it were six; integers are the same on every machine.
    assert right["information"] >= 20 and right["gzip"] >= 12
    wrong = sum(24 - int(count) for count in re.findall(r"(\d+) of 24", done.stdout))
    assert len(done.stdout.splitlines()) == 4 + wrong


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not installed")
def test_the_labelled_texts() -> None:
    entries = [json.loads(line) for line in (EXAMPLES / "topics.jsonl").read_text(encoding="utf-8").splitlines()]
    topics = [entry["topic"] for entry in entries]
    assert len(entries) == 24 and {topics.count(topic) for topic in topics} == {6}
    assert len({entry["text"] for entry in entries}) == 24
