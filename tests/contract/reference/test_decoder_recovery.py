"""Recovery data (F 5b) by the second implementation: the same bytes, and each mends what the other made."""

from __future__ import annotations

import io
import random

import decoder
import pytest
import recovery
from test_reference import EMBEDDED

import llmzip
from llmzip.format.reading import read_archives
from llmzip.recovery.repair import repair


@pytest.mark.parametrize(("size", "percent"), [(0, 5), (300, 5), (900, 20), (3000, 1)])
def test_both_make_the_same_packets(size: int, percent: float) -> None:
    text = random.Random(size).randbytes(size)
    plain, whole = llmzip.compress(text), llmzip.compress(text, recovery=percent)
    assert whole.startswith(plain)
    assert decoder.decode(whole, EMBEDDED) == text
    frames = list(read_archives(io.BytesIO(whole[len(plain) :])))
    payload = frames[0].payload
    block, parity = (int.from_bytes(payload[at : at + 4], "little") for at in (16, 20))
    assert recovery.payloads(recovery.packets(plain, block, parity)) == [frame.payload for frame in frames]


def test_both_mend_the_same_damage() -> None:
    text = random.Random(5).randbytes(900)
    plain = llmzip.compress(text)
    whole = llmzip.compress(text, recovery=10)
    block = 64
    blocks = recovery.cut(plain, block)
    parity = recovery.parity(blocks, 7)
    assert whole.count(parity[6]) == 1  # 7 blocks are kept: 1.4 times a tenth of 15, and 4
    lost = [0, 3, 4, 9, 14]
    kept = {0: parity[0], 2: parity[2], 3: parity[3], 5: parity[5], 6: parity[6]}
    rest = {number: data for number, data in enumerate(blocks) if number not in lost}
    assert recovery.restore(rest, len(blocks), kept, 7) == blocks
    damaged = bytearray(whole)
    for number in lost:
        damaged[number * block] ^= 0x55
    for number in (1, 4):
        damaged[whole.index(parity[number])] ^= 1
    out = io.BytesIO()
    (mended,) = repair(bytes(damaged), out).sets
    assert out.getvalue() == whole and (mended.lost_blocks, mended.lost_packets) == (5, 2)


def test_a_damaged_packet_is_found() -> None:
    whole = llmzip.compress(b"\0\1\2", recovery=5)
    for place in (whole.index(recovery.MAGIC) + 5, whole.index(recovery.MAGIC) + 60, len(whole) - 40):
        damaged = whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]
        with pytest.raises(decoder.ArchiveError):
            decoder.decode(damaged, EMBEDDED)
        with pytest.raises(llmzip.CorruptError):
            llmzip.decompress(damaged)
