"""The archives of the corpora are the bytes they were, and never grow: golden hashes and a floor for the ratio.

`make golden` writes archives.json and byte_tokens.json anew. Whoever finds a hash changed without meaning it has broken
every archive.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from model_samples import LACKING

import llmzip
from llmzip.codec.writer import ArchiveWriter
from llmzip.inference.load import load
from llmzip.models.choice import choose_model
from llmzip.settings import CompressSettings, EngineSettings
from llmzip.windows import packets

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


# -- byte tokens -------------------------------------------------------------------------------------------------------

_BYTE_TOKENS = Path(__file__).parent / "byte_tokens.json"
_LACKING_CASES: dict[str, dict[str, object]] = {
    "-1": {"level": 1},
    "-6": {"level": 6},
    "-9": {"level": 9},
    "prompt": {"level": 6, "prompt": LACKING + b"The tide comes in."},
    "windows": {"window_bits": 64},
    "windows, context kept": {"window_bits": 64, "model_reset": False},
}


def _text_with_lacking_bytes() -> bytes:
    text = (_CORPORA / "technical-en.txt").read_bytes()[:1500]
    return text[:600] + b"\x04\x06\x04" + text[600:1200] + LACKING + text[1200:]


def _check_byte_tokens(key: str, data: bytes) -> None:
    golden = json.loads(_BYTE_TOKENS.read_text()) if _BYTE_TOKENS.exists() else {}
    found = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if os.environ.get("LLMZIP_UPDATE_GOLDEN"):
        golden |= {key: found}
        _BYTE_TOKENS.write_text(json.dumps(golden, indent=2, sort_keys=True) + "\n")
    assert golden[key] == found
    assert set(golden) <= {*_LACKING_CASES, "packets"}


@pytest.mark.parametrize("name", _LACKING_CASES)
def test_archive_of_a_vocabulary_that_lacks_bytes_is_golden(name, lacking_model):
    settings = CompressSettings(model=lacking_model, **_LACKING_CASES[name])
    writer = ArchiveWriter(settings)
    archive = writer.write(_text_with_lacking_bytes()) + writer.finish()
    _check_byte_tokens(name, archive)
    methods = {frame.method for frame in llmzip.info(archive).archives[0].frames}
    assert methods == {"windows" if "windows" in name else "lm" if name == "-1" else "mixed"}
    prompt = _LACKING_CASES[name].get("prompt", b"")
    assert llmzip.decompress(archive, model=lacking_model, prompt=prompt) == _text_with_lacking_bytes()


def test_packets_of_a_vocabulary_that_lacks_bytes_are_golden(lacking_model):
    model = load(choose_model(lacking_model), EngineSettings())
    _check_byte_tokens("packets", b"".join(packets.encode(model, _text_with_lacking_bytes(), 140)))


@pytest.mark.parametrize("name", ["technical-en.txt", "crlf.txt"])
def test_golden_archive_decodes(name):
    text = (_CORPORA / name).read_bytes()[:1500]
    assert llmzip.decompress(llmzip.compress(text, level=1)) == text
