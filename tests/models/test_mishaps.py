"""Checks that what a failed download leaves in place of a model's files is called what it is, file by file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmzip.cli.main import main
from llmzip.errors import LLMZipError
from llmzip.models import layout
from llmzip.models.convert import convert
from llmzip.models.int8form import save_int8
from llmzip.models.mishaps import mishap
from llmzip.models.tokenizer import Tokenizer
from llmzip.models.weights import load_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 2200119864\n"
MISHAPS = {
    "pointer": (POINTER, "it is a pointer of git-lfs, not the file itself: `git lfs pull`"),
    "page": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><body>404</body></html>", "it is a web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "it is a web page"),
    "nothing": (b"", "it is empty: the download is incomplete"),
}
FILES = ["config.json", "model.safetensors", layout.INDEX, layout.INT8, "tokenizer.json", "vocab.json", "merges.txt"]
VOCABULARY = 320


@pytest.fixture
def folder(
    make_tokenizer: Callable[..., Path],
    random_checkpoint: Callable[..., Any],
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> Path:
    """A checkpoint with a tokenizer in both forms."""
    config, tensors = random_checkpoint(vocab_size=VOCABULARY)
    folder = write_checkpoint(make_tokenizer(tmp_path / "model", VOCABULARY), config, tensors)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def read(folder: Path, name: str) -> None:
    """Reads a file of a checkpoint by what reads it."""
    if name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer.json").unlink()
    load_model(folder)
    Tokenizer(folder, VOCABULARY)


@pytest.mark.parametrize("mishap", MISHAPS)
@pytest.mark.parametrize("name", FILES)
def test_each_file_is_called_what_it_is(name: str, mishap: str, folder: Path) -> None:
    content, text = MISHAPS[mishap]
    (folder / name).write_bytes(content)
    with pytest.raises(LLMZipError) as caught:
        read(folder, name)
    assert f"{name} cannot be read: {text}" in str(caught.value)


@pytest.mark.parametrize("name", [name for name in FILES if name != layout.INDEX])
def test_files_that_are_right_are_read(name: str, folder: Path, random_checkpoint: Callable[..., Any]) -> None:
    if name == layout.INT8:
        save_int8(convert(*random_checkpoint(vocab_size=VOCABULARY), 1, 50), folder)
    read(folder, name)
    assert not mishap(folder / name)


def test_other_damage_is_told_as_before(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"{")
    with pytest.raises(LLMZipError, match=r"config\.json cannot be read: Expecting"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", layout.INT8, "tokenizer.json"])
def test_the_command_line_says_it_in_one_line(
    name: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_bytes(POINTER)
    (tmp_path / "text").write_bytes(b"The tide comes in, and the tide goes out.\n" * 40)
    assert main(["-m", str(folder), str(tmp_path / "text")]) == 3
    line = capfd.readouterr().err
    assert line.count("\n") == 1 and f"{name} cannot be read: it is a pointer of git-lfs" in line
    assert not (tmp_path / "text.llmz").exists()
    if name == layout.INT8:
        assert main(["models", "info", str(folder)]) == 3
