"""The command entropy: rows, tables, JSON, CSV, real archives, sweeps, wrong use and what else can be wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmzip.cli.main import main
from llmzip.models.embedded import EMBEDDED

from .conftest import ROOT, Run

TEXT = (ROOT / "corpora" / "prose-de.txt").read_bytes()[:3000].decode("utf-8", "ignore").encode()
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({"tide.txt": TEXT}, "entropy")


def rows_of(call: Call, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = call("--json", *arguments)
    assert (code, err) == (0, ""), err
    return [json.loads(line) for line in out.splitlines()]


def test_one_row(call: Call) -> None:
    (row,) = rows_of(call, "tide.txt")
    assert (row["schema"], row["file"], row["model"], row["engine"]) == (1, "tide.txt", "small", "exact")
    assert (row["context"], row["stride"], row["error"]) == (16384, 8192, None)
    assert row["bytes"] == len(TEXT) and row["characters"] == len(TEXT.decode())
    assert row["words"] == len(TEXT.decode().split())
    assert row["bits_per_byte"] * row["bytes"] == pytest.approx(row["total_bits"])
    assert row["bits_per_character"] * row["characters"] == pytest.approx(row["total_bits"])
    assert row["perplexity_per_token"] == pytest.approx(2 ** (row["total_bits"] / row["tokens"]))
    assert row["total_bits"] == pytest.approx(row["arithmetic_bits"], rel=0.002)
    assert row["arithmetic_bits"] < row["prefix_bits"] < row["arithmetic_bits"] + row["tokens"]
    assert row["prefix_bits"] < row["ranks_zlib_bits"] and row["prefix_bits"] < row["zlib_bits"]
    assert row["raw_rate"] == -(-row["arithmetic_bits"] // 8) / row["bytes"]
    assert row["adjusted_rate"] == pytest.approx(row["raw_rate"] + 2 * 2_361_536 / row["bytes"])
    stored = (ROOT / "llmzip" / "embedded" / "small" / "model.llmzw").stat().st_size
    assert row["adjusted_rate_as_stored"] == pytest.approx(row["raw_rate"] + stored / row["bytes"])
    assert row["information_capacity"] is not None and "piece_bytes" not in row


def test_bits_are_those_of_an_archive_with_the_same_rows(call: Call, tmp_path: Path) -> None:
    (row,) = rows_of(call, "tide.txt")
    overlap = str(row["context"] - row["stride"])
    assert main(["-1", "-m", "small", "--rows", "1", "--overlap", overlap, "tide.txt"]) == 0
    size = (tmp_path / "tide.txt.llmz").stat().st_size
    assert abs(size - row["arithmetic_bits"] / 8) <= 0.001 * size + 24


def test_a_sweep_with_pieces(call: Call) -> None:
    rows = rows_of(call, "--context", "31,127,255", "--piece-bytes", "1000", "tide.txt")
    assert [(row["context"], row["stride"]) for row in rows] == [(31, 15), (127, 63), (255, 127)]
    bits = [row["total_bits"] for row in rows]
    assert bits[0] > bits[1] > bits[2]
    assert {(row["pieces"], row["piece_bytes"]) for row in rows} == {(3, 1000)}
    # Pieces have the whole context of the model, and nothing before them.
    (whole,) = rows_of(call, "tide.txt")
    assert whole["raw_rate"] < rows[0]["piece_raw_rate"] < rows[0]["raw_rate"]
    # More known tokens before each prediction tell more.
    (near,) = rows_of(call, "--context", "31", "--stride", "1", "tide.txt")
    (far,) = rows_of(call, "--context", "31", "--stride", "31", "tide.txt")
    assert near["total_bits"] < bits[0] < far["total_bits"]


def test_tables(call: Call) -> None:
    code, out, err = call("--context", "31,127", "tide.txt")
    assert (code, err) == (0, "")
    first, second, third = (part.splitlines() for part in out.split("\n\n"))
    assert all(len(part) == 4 for part in (first, second, third))
    rows = rows_of(call, "--context", "31,127", "tide.txt")
    assert f"{rows[0]['bits_per_byte']:.4f}" in first[2] and f"{rows[1]['total_bits']:,.0f}" in first[3]
    assert "bits per character" in second[0] and f"{rows[1]['prefix_bits_per_character']:.4f}" in second[3]
    assert "pieces raw" not in third[1] and f"{100 * rows[0]['raw_rate']:.2f}" in third[2]
    assert all(line.endswith("small  tide.txt") for part in (first, second, third) for line in part[2:])
    code, out, _ = call("--piece-bytes", "2048", "tide.txt")
    assert code == 0 and "pieces raw" in out


def test_csv_has_the_names_of_json(call: Call) -> None:
    code, out, err = call("--csv", "--context", "31,255", "tide.txt")
    assert (code, err) == (0, "")
    found = list(csv.DictReader(io.StringIO(out)))
    rows = rows_of(call, "--context", "31,255", "tide.txt")
    assert [row["total_bits"] for row in found] == [str(row["total_bits"]) for row in rows]
    assert set(found[0]) == set(rows[0]) - {"schema", "error"}


def test_several_models_and_texts(call: Call, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(TEXT[:500])
    rows = rows_of(call, "-m", "small", "-m", "base", "tide.txt", "b.txt")
    assert [(row["model"], row["file"]) for row in rows] == [
        ("small", "tide.txt"), ("small", "b.txt"), ("base", "tide.txt"), ("base", "b.txt"),
    ]  # fmt: skip
    assert rows[2]["total_bits"] < rows[0]["total_bits"]


def test_the_standard_input(run: Run) -> None:
    done = run("entropy", "-m", "small", "--json", input=TEXT[:800])
    assert (done.returncode, done.stderr) == (0, b"")
    row = json.loads(done.stdout)
    assert row["file"] is None and row["bytes"] == 800


def test_bytes_that_are_no_utf8(call: Call, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("Größe und Maß, schön gefügt.\n".encode("latin-1") * 9)
    code, out, err = call("--json", "l.txt")
    assert code == 0 and err == "llmzip: l.txt: is not valid UTF-8, so there are bits per byte but none per character\n"
    row = json.loads(out)
    assert row["bits_per_character"] is None and row["perplexity_per_word"] is None and row["bits_per_byte"] > 0
    code, out, _ = call("l.txt")
    assert code == 0 and "bits per byte" in out


def test_a_text_shorter_than_the_context(call: Call, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(b"Short.\n")
    code, out, err = call("--json", "--context", "31,64", "s.txt")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and rows[0]["total_bits"] == rows[1]["total_bits"] > 0
    words = "tokens with the model small, fewer than a context of 31, 64: all of it is seen at once\n"
    assert err.startswith("llmzip: s.txt: has ") and err.endswith(words) and err.count("\n") == 1
    tokens = rows[0]["tokens"]
    code, out, err = call("s.txt")
    assert (code, err) == (0, "")  # who asks for no context is told by the table
    lines = [line for line in out.splitlines() if "s.txt" in line]
    assert len(lines) == 3 and all(line.endswith(f"small  s.txt  whole text ({tokens} of 16,384)") for line in lines)
    assert lines[0].split()[5:9] == [str(tokens), str(tokens), "-", "small"]  # tokens, context, stride
    for context, seen in ((tokens, f"whole text ({tokens} of {tokens})"), (tokens - 1, "s.txt")):
        assert call("--context", str(context), "s.txt")[1].splitlines()[-1].endswith(seen)


def test_lists_of_models(call: Call, tmp_path: Path) -> None:
    embedded = EMBEDDED[1].folder
    for name in ("a,b", "a", "c"):
        shutil.copytree(embedded, tmp_path / name)

    def measured(*arguments: str) -> list[str]:
        return [row["model"] for row in rows_of(call, *arguments, "tide.txt")]

    (tmp_path / "tide.txt").write_bytes(TEXT[:200])
    assert measured("-m", "small,bytes") == measured("-m", "small", "-m", "bytes, small") == ["small", "bytes"]
    assert measured("-m", "a,b") == ["a,b"]  # a folder
    assert measured("-m", "c,a,b,small") == ["c", "a,b", "small"]
    assert measured("-m", "a,c") == ["a", "c"]
    code, _, err = call("-m", "small,nobody", "tide.txt")
    assert code == 3 and "'nobody' is neither" in err
    assert call("-m", "small,bytes", "--spans", "tide.txt")[0] == 2


def test_what_fails_does_not_stop_the_others(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "a.llmz").write_bytes(b"\xf9LZ\xe3")
    assert main(["-kf", "-m", "small", "-o", "a.llmz", "tide.txt"]) == 0
    code, out, err = call(
        "--json", "-m", "nobody", "-m", "small", "--context", "31,99999", "missing", "empty", "a.llmz", ".", "tide.txt"
    )
    assert code == 1
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["file"] for row in rows if row["error"] is None] == ["tide.txt"]
    failed = [(row["file"], row.get("model"), row["error"]["code"]) for row in rows if row["error"] is not None]
    assert failed == [
        ("missing", None, 1), ("empty", None, 1), ("a.llmz", None, 1), (".", None, 1), (None, "nobody", 3),
        (None, "small", 2),
    ]  # fmt: skip
    lines = err.splitlines()
    assert len(lines) == 6 and all(line.startswith("llmzip: ") for line in lines)
    for line, words in zip(
        lines,
        ["missing: No such file", "empty: is empty", "a.llmz: is an llmzip archive", ".: is a directory",
         "'nobody' is neither", "model small takes 16,384 tokens, fewer than --context 99999"],
        strict=True,
    ):  # fmt: skip
        assert words in line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-m", "nobody", "tide.txt"], 3, "neither a folder nor an embedded model"),
        (["missing", "nor-this"], 1, "missing: No such file"),
        (["--context", "20000", "tide.txt"], 2, "takes 16,384 tokens, fewer than --context 20000"),
        (["--context", "31", "--stride", "32", "tide.txt"], 2, "--stride 32 is more than the context of 31"),
        (["--context", "31,x", "tide.txt"], 2, "not a list of numbers such as"),
        (["--context", "0", "tide.txt"], 2, "not a list of numbers such as"),
        (["--stride", "0", "tide.txt"], 2, "stride"),
        (["--piece-bytes", "3", "tide.txt"], 2, "piece-bytes"),
        (["--csv", "--json", "tide.txt"], 2, "exclude each other"),
        (["--device", "abacus", "tide.txt"], 2, "abacus"),
        (["--engine", "float", "tide.txt"], 3, "small"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_use(call: Call, arguments: list[str], code: int, words: str) -> None:
    found, out, err = call(*arguments)
    assert (found, out) == (code, "") and words in err and err.count("\n") <= 2


def test_a_checkpoint_sees_as_much_as_is_asked_for(
    call: Call, random_checkpoint: Any, write_checkpoint: Any, make_tokenizer: Any, tmp_path: Path
) -> None:
    config, tensors = random_checkpoint(seed=2, vocab_size=320, max_position_embeddings=1500)
    make_tokenizer(write_checkpoint(tmp_path / "mine", config, tensors))
    code, out, err = call("--json", "-m", "mine", "--context", "31,1400,1600", "tide.txt")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 2 and [row["context"] for row in rows if row["error"] is None] == [31, 1400]
    assert "model mine takes 1,500 tokens, fewer than --context 1600" in err
    one = next(row for row in rows if row["error"] is None)
    assert one["adjusted_rate_as_stored"] < one["adjusted_rate"]
    both = [json.loads(call("--json", "-m", "mine", "--context", "64", *kind, "tide.txt")[1]) for kind in ((), FLOAT)]
    assert both[1]["engine"] == "float"
    assert both[1]["bits_per_byte"] == pytest.approx(both[0]["bits_per_byte"], rel=0.005)
    assert both[1]["flops_per_token"] == both[0]["flops_per_token"]


FLOAT = ("--engine", "float")


def test_a_reader_that_goes_away(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tide.txt").write_bytes(TEXT[:300])
    read, write = os.pipe()
    os.close(read)
    try:
        done = run("entropy", "-m", "small", "tide.txt", stdout=write)
    finally:
        os.close(write)
    assert done.returncode == -13 and done.stderr == b""
