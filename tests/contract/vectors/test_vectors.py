"""The vectors are what their script makes, and readers treat each class of them as its name says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from generate import FOLDER, vectors

import llmzip
from llmzip.errors import CorruptError, FormatError, ModelError

_VECTORS = {name: (archive, text) for name, archive, text in vectors()}


def test_no_file_without_a_line_in_the_script():
    assert {file.stem for file in FOLDER.glob("*.llmz")} == set(_VECTORS)


@pytest.mark.parametrize("name", _VECTORS)
def test_file_is_what_the_script_makes(name):
    archive, text = _VECTORS[name]
    assert (FOLDER / f"{name}.llmz").read_bytes() == archive
    if text is not None:
        assert (FOLDER / f"{name}.txt").read_bytes() == text


@pytest.mark.parametrize("name", [name for name in _VECTORS if name.startswith("good-")])
def test_good(name):
    archive, text = _VECTORS[name]
    assert llmzip.decompress(archive) == text
    info = llmzip.info(archive)
    assert info.original_bytes == len(text)
    methods = {frame.method for part in info.archives for frame in part.frames}
    named = name.split("-")[1]
    assert named not in ("lm", "mixed", "lzma", "zstd") or methods in ({named}, {"adaptive"})


@pytest.mark.parametrize("name", [name for name in _VECTORS if name.startswith("bad-")])
def test_bad(name):
    with pytest.raises(CorruptError):
        llmzip.decompress(_VECTORS[name][0])


@pytest.mark.parametrize("name", [name for name in _VECTORS if name.startswith("unsupported-")])
def test_unsupported(name):
    with pytest.raises((FormatError, ModelError)):
        llmzip.decompress(_VECTORS[name][0])


@pytest.mark.parametrize("name", [name for name in _VECTORS if name.startswith("unsupported-version-1")])
def test_archives_of_version_1_are_refused_by_name(name):
    place = "archive from byte 13 on: " if name.endswith("concatenated") else ""
    for read in (llmzip.decompress, llmzip.info):
        with pytest.raises(FormatError) as caught:
            read(_VECTORS[name][0])
        assert str(caught.value) == f"{place}format version 1 is not supported, only version 2: llmzip 0.1 reads it"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("bad-payload", 4),
        ("unsupported-version", 1),
        ("unsupported-version-1", 1),
        ("unsupported-version-1-lm", 1),
        ("unsupported-model-missing", 3),
    ],
)
def test_exit_code(name, code):
    run = subprocess.run(
        [sys.executable, "-m", "llmzip", "-dc", str(FOLDER / f"{name}.llmz")], capture_output=True, check=False
    )
    assert run.returncode == code
    assert run.stdout == b""
    assert run.stderr.count(b"\n") == 1
