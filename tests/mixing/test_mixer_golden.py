"""The mixer's payloads are the bytes they were: golden hashes of samples that use all of it.

LLMZIP_UPDATE_GOLDEN=1 writes golden.json anew. Whoever finds a hash changed without meaning it has broken every
archive; the round trips would not notice a change that encoder and decoder share.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import mixer_samples as samples
import pytest

from llmzip.mixing.mixer import encode_bytes

_GOLDEN = Path(__file__).parent / "golden.json"
_BYTES = samples.long_bytes()
_TOKENS = samples.long_tokens()
_CASES = [f"bytes: {name}" for name in _BYTES] + [f"tokens: {name}" for name in _TOKENS]


def _golden() -> dict[str, dict[str, object]]:
    return json.loads(_GOLDEN.read_text()) if _GOLDEN.exists() else {}


@pytest.mark.parametrize("case", _CASES)
def test_payload_is_golden(case: str) -> None:
    kind, _, name = case.partition(": ")
    payload, _ = encode_bytes(_BYTES[name]) if kind == "bytes" else samples.encode_tokens(_TOKENS[name])
    found = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    if os.environ.get("LLMZIP_UPDATE_GOLDEN"):
        _GOLDEN.write_text(json.dumps(_golden() | {case: found}, indent=2, sort_keys=True) + "\n")
    assert found == _golden()[case]


def test_no_golden_without_a_case() -> None:
    assert set(_golden()) == set(_CASES)
