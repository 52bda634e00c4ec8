"""Packets (F 11) by the second decoder."""

from __future__ import annotations

import decoder
import pytest
from test_reference import ENGLISH

from llmzip.inference.load import load
from llmzip.models.choice import choose_model
from llmzip.models.embedded import DEFAULT
from llmzip.settings import EngineSettings
from llmzip.windows import packets as window_packets

SMALL = DEFAULT.folder.parent / "small"
NO_UTF8 = bytes(range(120, 256)) + ENGLISH[:90] + bytes(range(256))


@pytest.mark.parametrize(("text", "packet_bytes"), [(ENGLISH[:260], 40), (NO_UTF8, 140), (b"a", 32), (b"", 32)])
def test_packets(text: bytes, packet_bytes: int) -> None:
    packets = window_packets.encode(load(choose_model("small"), EngineSettings()), text, packet_bytes)
    assert decoder.decode_packets(packets[::-1], SMALL) == text
    if len(packets) > 1:
        with pytest.raises(decoder.ArchiveError, match="missing"):
            decoder.decode_packets(packets[1:], SMALL)
    changed = bytearray(packets[0])
    changed[-1] ^= 1
    with pytest.raises(decoder.ArchiveError, match="check"):
        decoder.decode_packets([bytes(changed)], SMALL)
