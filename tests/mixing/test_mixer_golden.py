"""The mixer's payloads are the bytes they were: golden hashes of samples that use all of it.

LLMZIP_UPDATE_GOLDEN=1 rewrites golden.json. A hash that changed by accident breaks every archive: the round trips would
not notice a change that encoder and decoder share.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import mixer_samples as samples
import pytest

from llmzip.mixing import library
from llmzip.mixing.mixer import encode_bytes

_GOLDEN = Path(__file__).parent / "golden.json"
_LEVELS = [level for level in library.LEVELS if library.library(level) is not None]
_BYTES = samples.long_bytes()
_TOKENS = samples.long_tokens()
_CASES = [f"bytes: {name}" for name in _BYTES] + [f"tokens: {name}" for name in _TOKENS]


def _golden() -> dict[str, dict[str, object]]:
    return json.loads(_GOLDEN.read_text()) if _GOLDEN.exists() else {}


@pytest.mark.parametrize("case", _CASES)
def test_payload_is_golden_at_every_level(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, _, name = case.partition(": ")
    for level in _LEVELS:
        monkeypatch.setenv("LLMZIP_KERNELS", level)
        payload, _ = encode_bytes(_BYTES[name]) if kind == "bytes" else samples.encode_tokens(_TOKENS[name])
        facts = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        if os.environ.get("LLMZIP_UPDATE_GOLDEN"):
            _GOLDEN.write_text(json.dumps(_golden() | {case: facts}, indent=2, sort_keys=True) + "\n")
        assert facts == _golden()[case]


def test_no_golden_without_a_case() -> None:
    assert set(_golden()) == set(_CASES)
