"""Mending files: damage of every kind up to the promise, refusal beyond it, and hostile bytes."""

from __future__ import annotations

import io
import itertools
import random
import time
import zlib

import mending as benchmark
import pytest

import llmzip
from llmzip.errors import CorruptError, LLMZipError
from llmzip.format import writing
from llmzip.format.headers import STORED, FrameHeader, Header
from llmzip.format.recovery import HEAD_BYTES, PACKET_MAGIC, Layout, layout_for, parse_head
from llmzip.recovery.making import RecoveryWriter
from llmzip.recovery.repair import Repair, repair

NOISE = random.Random(1).randbytes(200_000)
PLAIN = llmzip.compress(NOISE)
WHOLE = llmzip.compress(NOISE, recovery=5)


def mended(data: bytes) -> tuple[bytes, Repair]:
    out = io.BytesIO()
    done = repair(data, out)
    return out.getvalue(), done


def test_a_whole_file_stays_as_it_is() -> None:
    out, done = mended(WHOLE)
    assert out == WHOLE and not done.is_changed and done.sets[0].was_whole
    assert WHOLE[: len(PLAIN)] == PLAIN and llmzip.decompress(WHOLE) == NOISE


@pytest.mark.parametrize("damage", benchmark.DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("seed", range(8))
def test_damage_of_the_promised_share(damage: benchmark.Damage, seed: int) -> None:
    data = bytearray(WHOLE)
    damage(data, len(WHOLE) // 20, random.Random(seed))
    out, done = mended(bytes(data))
    assert out == WHOLE and done.is_changed


@pytest.mark.parametrize("count", range(0, 24, 3))
def test_single_bytes_cost_a_block_each(count: int) -> None:
    rng = random.Random(count)
    head = parse_head(WHOLE[WHOLE.index(PACKET_MAGIC) :])
    assert head is not None and head.layout.num_parity == 18
    data = bytearray(WHOLE)
    for block in rng.sample(range(head.layout.num_blocks), count):
        data[block * head.layout.block_bytes + rng.randrange(100)] ^= 1
    if count <= 18:
        out, done = mended(bytes(data))
        assert out == WHOLE and done.sets[0].lost_blocks == count
    else:
        with pytest.raises(CorruptError, match=r"cannot be repaired: 21 of 196 blocks .* 18 parity blocks are left"):
            mended(bytes(data))


def test_every_byte_of_a_small_file() -> None:
    whole = llmzip.compress(b"\0\1\2", recovery=5)
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 0x81
        out, done = mended(bytes(data))
        assert out == whole and done.is_changed, place


def test_a_file_that_is_cut_off() -> None:
    for cut in (1, 20, 3000, 10_000, len(WHOLE) - len(PLAIN) - 5000):
        assert mended(WHOLE[:-cut])[0] == WHOLE
    with pytest.raises(LLMZipError, match="no recovery data was found"):
        mended(PLAIN)
    head = parse_head(WHOLE[WHOLE.index(PACKET_MAGIC) :])
    assert head is not None
    # A beginning that is lost is damage like other damage, and what came in its place does not matter.
    for cut in (1, 5, 1000, 9_000):
        assert mended(WHOLE[cut:])[0] == WHOLE


@pytest.mark.parametrize("place", [0, 1, 777, 60_000, 199_000, 201_000, 210_000])
def test_bytes_that_were_inserted_or_removed(place: int) -> None:
    """Once, anywhere, any number: blocks are found before and after that place."""
    for count in (1, 2, 1000, 4096):
        out, done = mended(WHOLE[:place] + bytes(count) + WHOLE[place:])
        assert out == WHOLE and done.is_changed, count
        assert mended(WHOLE[:place] + WHOLE[place + count :])[0] == WHOLE, count


def test_several_archives_in_a_file() -> None:
    rng = random.Random(3)
    other = llmzip.compress(rng.randbytes(30_000), recovery=20)
    unprotected = llmzip.compress(b"\0\1")
    whole = WHOLE + unprotected + other + unprotected
    assert not mended(whole)[1].is_changed
    data = bytearray(whole)
    for place in (50, 60_000, len(WHOLE) + 300, len(WHOLE) + len(unprotected) + 10, len(whole) - 30_000):
        data[place : place + 200] = rng.randbytes(200)
    out, done = mended(bytes(data))
    assert len(done.sets) == 2 and out.startswith(WHOLE)
    data[len(WHOLE) : len(WHOLE) + len(unprotected)] = unprotected
    # other protects its own archive only
    out, done = mended(whole[: len(WHOLE)] + unprotected + bytes(data[len(WHOLE) + len(unprotected) :]))
    assert out == whole


def test_protected_files_inside_a_protected_file() -> None:
    inner = llmzip.compress(NOISE[:20_000], recovery=5)
    text = NOISE[50_000:60_000] + inner + NOISE[60_000:90_000]
    outer = writing.pack_frame(
        FrameHeader(STORED, len(text), len(text), last=True), text, zlib.crc32(text), writing.pack_header(Header())
    )
    writer = RecoveryWriter(10)
    writer.add(outer)
    whole = outer + b"".join(writer.finish())
    assert llmzip.decompress(whole) == text
    data = bytearray(whole)
    data[5000:7000] = bytes(2000)
    data[-3000:-1000] = bytes(2000)
    out, done = mended(bytes(data))
    assert out == whole and len(done.sets) == 1


def test_layouts_are_bijections_and_agree_with_the_file() -> None:
    for num_bytes in (1, 64, 65, 5000, 10**6, 10**7, 10**9, 2**37):
        for percent in (0.1, 1, 5, 37.5, 100):
            layout = layout_for(num_bytes, percent, bytes(16))
            assert layout.is_readable, (num_bytes, percent)
            if layout.num_packets < 5000:
                tables = [layout.table_number(n) for n in range(layout.num_packets)]
                assert [n for n in tables if n is not None] == list(range(layout.table_packets))
                rest = [layout.parity_number(n) for n, table in enumerate(tables) if table is None]
                assert rest == list(range(layout.num_parity))
            assert sum(layout.frame_packets) == layout.num_packets
            assert len(set(layout.frame_packets)) <= 2 <= len(layout.frame_packets)
    head = parse_head(WHOLE[WHOLE.index(PACKET_MAGIC) :])
    assert head is not None
    layout, begin = head.layout, len(PLAIN)
    assert layout.archive_bytes == len(WHOLE) - begin
    for number in range(layout.num_packets):
        found = parse_head(WHOLE[begin + layout.packet_offset(number) :])
        assert found is not None and found.number == number


def test_offsets_in_several_frames() -> None:
    layout = Layout(3 * 2**24, 2**24, 6, bytes(16))
    assert layout.frame_packets == [3, 3, 3, 2]
    ends = [layout.packet_offset(n) for n in range(layout.num_packets)]
    steps = [after - before for before, after in itertools.pairwise(ends)]
    assert steps == [layout.packet_bytes + 18 * (n in (3, 6, 9)) for n in range(1, layout.num_packets)]
    assert layout.archive_bytes - ends[-1] - layout.packet_bytes == 5 + 1 + 1 + 4 * 6 + 12


@pytest.mark.parametrize("change", ["protected", "block", "parity", "many", "small"])
def test_hostile_packets_cost_little(change: str) -> None:
    """Packets with right checks that claim what cannot be: refused at once, whatever they ask for."""
    layouts = {
        "protected": Layout(2**38 - 1, 2**24, 100, bytes(16)),
        "block": Layout(10, 64, 2**15, bytes(16)),
        "parity": Layout(2**20, 64, 2**15, bytes(16)),
        "small": Layout(1, 2**20, 2**15, bytes(16)),
    }
    if change == "many":
        # Heads whose data check is wrong, each of which would have megabytes read.
        layout = Layout(2**24, 2**20, 5, bytes(16))
        packet = layout.pack_packet(0, bytes(layout.block_bytes))
        broken = packet[:HEAD_BYTES] * 40_000 + bytes(layout.block_bytes)
    else:
        layout = layouts[change]
        data = bytes(layout.block_bytes)
        broken = b"".join(layout.pack_packet(n, data) for n in range(12))
    started = time.perf_counter()
    with pytest.raises(LLMZipError):
        mended(broken)
    assert time.perf_counter() - started < 20


def test_random_damage_never_gives_a_wrong_file() -> None:
    """Beyond the promise too: either the original comes back, or an error."""
    rng = random.Random(9)
    whole = llmzip.compress(NOISE[:9000], recovery=8)
    good = bad = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 12)):
            place, size = rng.randrange(len(data)), rng.choice((1, 3, 40, 400))
            what = rng.randrange(4)
            if what == 0:
                del data[place : place + size]
            elif what == 1:
                data[place:place] = rng.randbytes(size)
            else:
                data[place : place + size] = rng.randbytes(len(data[place : place + size]))
        try:
            out, done = mended(bytes(data))
        except LLMZipError:
            bad += 1
            continue
        begin = done.sets[0].begin
        assert out[begin : begin + len(whole)] == whole
        good += 1
    assert good > 40 and bad > 10
