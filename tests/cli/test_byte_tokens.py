"""Every command with a model whose vocabulary lacks bytes, and what -v and models info say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from model_samples import LACKING

from .conftest import ROOT

PROSE = (ROOT / "corpora" / "prose-en.txt").read_bytes()
TEXT = PROSE[:700] + b"\x04\x1d" + PROSE[700:1000] + LACKING + PROSE[1000:1200]
NOTE = "no token for 21 bytes (04 06 13 14 16 1d c0 c1 f1 f2 f5-ff): coded as byte tokens"
Call = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def call(call_with: Callable[..., Call], lacking_model: Path) -> Call:
    """Runs a command; NAME stands for the model's folder."""
    run = call_with({"a.txt": TEXT, "b.txt": PROSE[1200:2000] + b"\x06", "c.txt": PROSE[2000:2600]})
    return lambda *arguments: run(*(str(lacking_model) if part == "NAME" else part for part in arguments))


def out(call: Call, *arguments: str) -> bytes:
    code, output, errors = call(*arguments)
    assert code == 0, errors
    return output


@pytest.mark.parametrize(
    "options", [["-1"], ["-6"], ["-9"], ["--window-bits", "64"], ["--prompt-file", "b.txt"]], ids=str
)
def test_archives_come_back_and_say_what_the_tokenizer_lacks(call: Call, options: list[str]) -> None:
    prompt = options if options[0] == "--prompt-file" else []
    code, _, errors = call("-v", "-m", "NAME", *options, "a.txt", "c.txt")
    assert code == 0
    assert errors.count(f"llmzip: model small-lacking: its tokenizer has {NOTE}\n") == 1
    code, text, errors = call("-dcv", "-m", "NAME", *prompt, "a.txt.llmz")
    assert (code, text) == (0, TEXT) and NOTE in errors
    assert NOTE not in call("-dc", "-m", "NAME", *prompt, "a.txt.llmz")[2]


def test_a_vocabulary_that_lacks_nothing_is_not_mentioned(call: Call) -> None:
    assert "byte tokens" not in call("-v", "-m", "small", "a.txt")[2]


def test_parts_of_archives(call: Call) -> None:
    out(call, "-m", "NAME", "--window-bits", "64", "a.txt")
    for begin, end in ((0, 9), (690, 720), (995, 1030), (1100, len(TEXT))):
        assert out(call, "cat", "-m", "NAME", "--range", f"{begin}:{end}", "a.txt.llmz") == TEXT[begin:end]
    Path("long.txt").write_bytes(TEXT * 8)  # several groups of windows
    out(call, "-m", "NAME", "--window-bits", "128", "long.txt")
    damaged = bytearray(Path("long.txt.llmz").read_bytes())
    damaged[100] ^= 4
    Path("long.txt.llmz").write_bytes(damaged)
    code, rest, _ = call("cat", "-m", "NAME", "--salvage", "long.txt.llmz")
    assert code == 4 and len(TEXT) < len(rest) < 8 * len(TEXT) and (TEXT * 8).endswith(rest)
    assert json.loads(out(call, "windows", "--json", "-m", "NAME", "a.txt.llmz"))["bytes"] == len(TEXT)
    assert b"\n" in out(call, "windows", "--show", "-m", "NAME", "--window-bits", "32", "a.txt")
    out(call, "windows", "-m", "NAME", "--export", "tokens.npy", "a.txt.llmz")
    assert out(call, "windows", "-m", "NAME", "--import", "tokens.npy") == TEXT


def test_packets(call: Call) -> None:
    out(call, "packets", "-m", "NAME", "--packet-bytes", "100", "a.txt", "-o", "p")
    assert out(call, "packets", "-d", "-m", "NAME", "p") == TEXT
    sorted(Path("p").iterdir())[1].unlink()
    code, rest, _ = call("packets", "-d", "-m", "NAME", "p")
    assert code == 4 and 0 < len(rest) < len(TEXT)


def test_measures(call: Call) -> None:
    row = json.loads(out(call, "entropy", "--json", "-m", "NAME", "a.txt"))
    assert row["bytes"] == len(TEXT)
    spans = [json.loads(line) for line in out(call, "entropy", "--spans", "--json", "-m", "NAME", "b.txt").splitlines()]
    assert sum(span["bytes"] for span in spans) == 801
    out(call, "entropy", "-m", "NAME", "--html", "a.html", "a.txt")
    assert "F5" in Path("a.html").read_text(encoding="utf-8")
    assert out(call, "distance", "-m", "NAME", "a.txt", "b.txt")
    assert json.loads(out(call, "estimate", "--json", "-m", "NAME", "a.txt"))["method"] == "mixed"
    assert out(call, "bench", "-m", "NAME", "--peers", "gzip", "a.txt")


def test_models_info(call: Call) -> None:
    assert f"tokenizer         byte-level, {NOTE}\n" in out(call, "models", "info", "NAME").decode()
    assert json.loads(out(call, "models", "info", "--json", "NAME"))["lacking_bytes"] == list(LACKING)
    assert b"tokenizer         byte-level\n" in out(call, "models", "info", "small")
    assert json.loads(out(call, "models", "info", "--json", "small"))["lacking_bytes"] == []
