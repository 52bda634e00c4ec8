"""The command estimate: text and JSON, small and long files, options, wrong use and what else can be wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmzip.cli.main import main
from llmzip.measures import budget

from .conftest import ROOT, Run

SMALL = (ROOT / "corpora" / "prose-de.txt").read_bytes()[:1500]
LONG = b"".join((ROOT / "corpora" / name).read_bytes() for name in ("prose-en.txt", "service.log", "technical-en.txt"))
RANGES = ("compressed_bytes", "compress_seconds", "decompress_seconds")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _time_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes take no time from a sample."""
    monkeypatch.setattr(budget, "_clock", time.process_time)


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({"small.txt": SMALL, "long.txt": LONG}, "estimate")


def rows_of(call: Call, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = call("--json", *arguments)
    assert (code, err) == (0, ""), err
    return [json.loads(line) for line in out.splitlines()]


def test_json(call: Call, tmp_path: Path) -> None:
    whole, sampled = rows_of(call, "--seconds", "0.5", "small.txt", "long.txt")
    assert (whole["schema"], whole["file"], whole["error"], whole["level"]) == (1, "small.txt", None, 6)
    assert whole["is_whole"] and whole["sampled_bytes"] == whole["original_bytes"] == len(SMALL)
    assert main(["-k", "-m", "small", "small.txt"]) == 0
    size = (tmp_path / "small.txt.llmz").stat().st_size
    assert whole["compressed_bytes"] == whole["compressed_bytes_low"] == whole["compressed_bytes_high"] == size
    assert whole["bits_per_byte"] == pytest.approx(8 * size / len(SMALL))
    assert not sampled["is_whole"] and sampled["pieces"] >= 8 and sampled["model"] == "small"
    for name in RANGES:
        assert 0 < sampled[f"{name}_low"] < sampled[name] < sampled[f"{name}_high"]
    assert sampled["sampled_bytes"] < len(LONG) and sampled["elapsed_seconds"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"small.txt", "long.txt", "small.txt.llmz"}


def test_text(call: Call) -> None:
    code, out, err = call("--seconds", "0.5", "-1", "long.txt", "small.txt")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"long.txt: {len(LONG):,} bytes, level 1, lm, model small"
    assert " to " in lines[1] and "bits/byte" in lines[1]
    assert lines[2].startswith("  compress ") and lines[3].startswith("  decompress ")
    assert "evenly spread places" in lines[4]
    assert lines[5].startswith("small.txt: 1,500 bytes") and lines[6].endswith("all of it was compressed")
    assert len(lines) == 9


def test_windows_and_a_prompt(call: Call, tmp_path: Path) -> None:
    (tmp_path / "middle.txt").write_bytes(LONG[:8000])
    (row,) = rows_of(call, "--window-bits", "512", "--seconds", "0.2", "middle.txt")
    assert row["method"] == "windows"
    (tmp_path / "prompt").write_bytes(SMALL)
    plain, prompted = rows_of(call, "small.txt"), rows_of(call, "--prompt-file", "prompt", "small.txt")
    assert prompted[0]["compressed_bytes"] < plain[0]["compressed_bytes"] / 2


def test_an_empty_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (row,) = rows_of(call, "empty")
    assert (row["original_bytes"], row["bits_per_byte"], row["model"], row["is_whole"]) == (0, None, None, True)
    code, out, _ = call("empty")
    assert code == 0 and out.startswith("empty: 0 bytes")


def test_what_fails_does_not_stop_the_others(call: Call, tmp_path: Path) -> None:
    assert main(["-k", "-m", "small", "small.txt"]) == 0
    code, out, err = call("--json", "missing", ".", "small.txt.llmz", "small.txt")
    assert code == 1
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["file"] for row in rows if row["error"] is None] == ["small.txt"] and len(rows) == 4
    lines = err.splitlines()
    for line, words in zip(
        lines,
        ["missing: No such file", ".: is a directory", "small.txt.llmz: is already an llmzip archive"],
        strict=True,
    ):
        assert line.startswith("llmzip: ") and words in line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "name the files"),
        (["-m", "nobody", "small.txt"], 3, "neither a folder nor an embedded model"),
        (["--seconds", "0", "small.txt"], 2, "seconds"),
        (["--window-bits", "3", "small.txt"], 2, "window_bits"),
        (["--rows", "0", "small.txt"], 2, "rows"),
        (["--device", "abacus", "small.txt"], 2, "abacus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_use(call: Call, arguments: list[str], code: int, words: str) -> None:
    found, out, err = call(*arguments)
    assert (found, out) == (code, "") and words in err and err.count("\n") <= 2


def test_the_standard_input_is_read_where_it_is_named(run: Run) -> None:
    done = run("estimate", input=SMALL)
    assert done.returncode == 2 and b"name the files; - is the standard input" in done.stderr
    done = run("estimate", "-m", "small", "--json", "-", input=SMALL)
    assert (done.returncode, json.loads(done.stdout)["original_bytes"]) == (0, len(SMALL))


def test_it_says_meanwhile_what_it_does(call: Call) -> None:
    code, _, err = call("--seconds", "0.2", "--progress", "long.txt")
    assert code == 0
    said = [part.strip() for part in err.replace("\r", "\n").splitlines()]
    for text in (
        "loading the model",
        "trying LZMA and Zstandard",
        "measuring the speed",
        "of 32 places",
        "timing steps",
    ):
        assert any(part.startswith("long.txt: ") and text in part for part in said), text
    assert call("--seconds", "0.2", "long.txt")[2] == ""
