"""The archives of the corpora are the bytes they were, and never grow: golden hashes and a floor for the ratio.

`make golden` writes archives.json anew. Whoever finds a hash changed without meaning it has broken every archive.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

import llmzip

_GOLDEN = Path(__file__).parent / "archives.json"
_CORPORA = Path(__file__).parents[3] / "corpora"
# Files for the model only: what liblzma and zstd write may differ between their versions.
_FILES = ("technical-en.txt", "code-c.txt", "prose-ru.txt", "crlf.txt")
_LEVELS = {"technical-en.txt": (1, 6, 9)}


def _cases() -> list[tuple[str, int]]:
    return [(name, level) for name in _FILES for level in _LEVELS.get(name, (6,))]


def _golden() -> dict[str, dict[str, object]]:
    return json.loads(_GOLDEN.read_text()) if _GOLDEN.exists() else {}


@pytest.mark.parametrize(("name", "level"), _cases())
def test_archive_is_golden(name, level):
    archive = llmzip.compress((_CORPORA / name).read_bytes(), level=level)
    assert {frame.method for frame in llmzip.info(archive).archives[0].frames} == {"lm" if level == 1 else "mixed"}
    found = {"bytes": len(archive), "sha256": hashlib.sha256(archive).hexdigest()}
    key = f"{name} -{level}"
    if os.environ.get("LLMZIP_UPDATE_GOLDEN"):
        _GOLDEN.write_text(json.dumps(_golden() | {key: found}, indent=2, sort_keys=True) + "\n")
    golden = _golden()[key]
    assert found["bytes"] <= golden["bytes"], "the archive grew"
    assert found == golden


def test_no_golden_without_a_case():
    assert set(_golden()) == {f"{name} -{level}" for name, level in _cases()}


@pytest.mark.parametrize("name", ["technical-en.txt", "crlf.txt"])
def test_golden_archive_decodes(name):
    text = (_CORPORA / name).read_bytes()[:1500]
    assert llmzip.decompress(llmzip.compress(text, level=1)) == text
