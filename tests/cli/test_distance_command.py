"""The command distance: two texts, matrices, JSON, wrong use and what else can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmzip.cli.main import main

from .conftest import ROOT, Run

TEXTS = {
    "a.txt": b"The ferry leaves the harbour at nine and comes back in the evening.\n",
    "b.txt": b"At nine the ferry leaves the harbour; in the evening it comes back.\n",
    "c.py": b"for row in rows:\n    total += row.price * row.count\n",
}
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with(TEXTS, "distance")


def rows_of(call: Call, *arguments: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines about texts, and about pairs."""
    code, out, err = call("--json", *arguments)
    assert (code, err) == (0, ""), err
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(row["schema"] == 1 and row["error"] is None for row in rows)
    return [row for row in rows if row["kind"] == "text"], [row for row in rows if row["kind"] == "pair"]


def test_json(call: Call) -> None:
    texts, pairs = rows_of(call, *TEXTS)
    assert [row["file"] for row in texts] == list(TEXTS)
    assert [row["bytes"] for row in texts] == [len(data) for data in TEXTS.values()]
    names = [(row["first"]["file"], row["second"]["file"]) for row in pairs]
    assert names == [(one, two) for one in TEXTS for two in TEXTS if one != two]
    alone = {row["file"]: row["bits"] for row in texts}
    for (first, second), row in zip(names, pairs, strict=True):
        given = (row["first_bits_given_second"], row["second_bits_given_first"])
        both = (alone[first], alone[second])
        assert row["max_distance"] == pytest.approx(max(given) / max(both))
        assert row["mean_distance"] == pytest.approx(sum(given) / sum(both))
        assert row["model_ncd"] == pytest.approx((both[0] + given[1] - min(both)) / max(both))
    ab, ac = pairs[0], pairs[1]
    assert ab["max_distance"] < ac["max_distance"] and ab["gzip_ncd"] < ac["gzip_ncd"]


def test_two_texts(call: Call) -> None:
    code, out, err = call("a.txt", "b.txt")
    assert (code, err) == (0, "")
    _, pairs = rows_of(call, "a.txt", "b.txt")
    lines = out.splitlines()
    assert lines[:3] == ["A  a.txt", "B  b.txt", ""]
    for key in ("max_distance", "mean_distance", "model_ncd", "gzip_ncd"):
        assert f"{pairs[0][key]:.4f}" in out
    assert f"{pairs[1]['gzip_ncd']:.4f}" in lines[-1] and f"{pairs[0]['first_bits_given_second']:,.1f}" in out


def test_a_matrix(call: Call) -> None:
    _, pairs = rows_of(call, *TEXTS)
    code, out, err = call(*TEXTS)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 5 and lines[0].startswith("max: ") and lines[2].endswith("1 a.txt")
    assert lines[2].split()[:3] == ["0.0000", *(f"{row['max_distance']:.4f}" for row in pairs[:2])]
    code, out, _ = call("--measure", "gzip", *TEXTS)
    assert out.splitlines()[4].split()[:3] == [*(f"{row['gzip_ncd']:.4f}" for row in pairs[4:]), "0.0000"]


def test_beginnings_of_long_texts(call: Call, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_bytes((ROOT / "corpora" / "prose-en.txt").read_bytes() * 3)
    code, out, err = call("--json", "long.txt", "a.txt", "c.py")
    assert code == 1 and "long.txt: has " in err and "--first N takes the first N of each" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["file"] == "long.txt" and rows[0]["error"]["code"] == 1 and len(rows) == 5
    texts, _ = rows_of(call, "--first", "9", "long.txt", "a.txt")
    assert [row["tokens"] for row in texts] == [9, 9]


def test_the_standard_input(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXTS["a.txt"])
    done = run("distance", "-m", "small", "--json", "-", "a.txt", input=TEXTS["b.txt"])
    assert (done.returncode, done.stderr) == (0, b"")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("file") for row in rows[:2]] == [None, "a.txt"]


def test_what_fails_does_not_stop_the_others(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "x.llmz").write_bytes(b"\xf9LZ\xe3")
    (tmp_path / "x.llmz").unlink()
    assert main(["-k", "-m", "small", "-o", "x.llmz", "a.txt"]) == 0
    code, out, err = call("missing", "empty", ".", "x.llmz", "a.txt", "b.txt")
    assert code == 1 and "information distance, max" in out
    for line, words in zip(
        err.splitlines(),
        ["missing: No such file", "empty: is empty", ".: is a directory", "x.llmz: is an llmzip archive"],
        strict=True,
    ):
        assert line.startswith("llmzip: ") and words in line
    code, out, err = call("missing", "a.txt")
    assert (code, out) == (1, "") and err.count("\n") == 1


def test_what_would_take_too_long(call: Call) -> None:
    code, out, err = call("--minutes", "0.00001", "a.txt", "b.txt")
    assert (code, out) == (1, "") and "2 texts, " in err and "--minutes" in err
    assert "about under" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a.txt"], 2, "at least two files"),
        ([], 2, "at least two files"),
        (["-", "-"], 2, "one text only"),
        (["a.txt"] * 2001, 2, "too many"),
        (["--measure", "euclid", "a.txt", "b.txt"], 2, "euclid"),
        (["--first", "0", "a.txt", "b.txt"], 2, "first"),
        (["--first", "9000", "a.txt", "b.txt"], 2, "compares 8,191 tokens"),
        (["-m", "nobody", "a.txt", "b.txt"], 3, "neither a folder nor an embedded model"),
        (["--device", "abacus", "a.txt", "b.txt"], 2, "abacus"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else None,
)
def test_wrong_use(call: Call, arguments: list[str], code: int, words: str) -> None:
    found, out, err = call(*arguments)
    assert (found, out) == (code, "") and words in err and err.count("\n") <= 2
