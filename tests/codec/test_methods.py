"""Checks the methods that need no model: round trips, the choice of the smallest, and hostile payloads."""

from __future__ import annotations

import lzma
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zstandard

from llmzip.codec import methods
from llmzip.errors import CorruptError
from llmzip.format.headers import LZMA, STORED, ZSTD

TEXT = b"".join(b"line %d: %s\n" % (n, bytes([97 + n * n % 26]) * (n % 9)) for n in range(4000))
SIZES = [1, 2, 100, 4095, 4096, 4097, 8192, 8193, 50_000]


def raw_lzma(data: bytes, dictionary_bytes: int, preset: int = 6) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary_bytes}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


def raw_zstd(data: bytes, level: int = 3, **parameters: int) -> bytes:
    """A Zstandard frame without magic, by default with nothing else that may be left out."""
    fields = {"write_content_size": 0, "write_checksum": 0, "write_dict_id": 0} | parameters
    settings = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(data), format=zstandard.FORMAT_ZSTD1_MAGICLESS, **fields
    )
    return zstandard.ZstdCompressor(compression_params=settings).compress(data)


def payloads(data: bytes) -> dict[int, bytes]:
    """What each method may hold for this data, made without llmzip."""
    dictionary = max(4096, 1 << (len(data) - 1).bit_length())
    return {STORED: data, LZMA: raw_lzma(data, dictionary), ZSTD: raw_zstd(data)}


@pytest.mark.parametrize("method", [STORED, LZMA, ZSTD])
@pytest.mark.parametrize("size", SIZES)
def test_each_method_gives_the_data_back(method: int, size: int) -> None:
    data = TEXT[:size]
    assert methods.decompress_plain(method, payloads(data)[method], size) == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["text", "one byte", "random"])
def test_the_smallest_method_is_taken_and_comes_back(size: int, kind: str, rng: np.random.Generator) -> None:
    data = {"text": TEXT[:size], "one byte": b"x" * size, "random": rng.bytes(size)}[kind]
    method, payload = methods.compress_plain(data)
    assert methods.decompress_plain(method, payload, size) == data
    xz = raw_lzma(data, 1 << 26, 9 | lzma.PRESET_EXTREME)
    assert len(payload) <= min(len(raw_zstd(data, 19)), len(xz), len(data))
    if kind == "random":
        assert (method, payload) == (STORED, data)


def test_each_method_is_the_smallest_of_something() -> None:
    assert methods.compress_plain(b"ab")[0] == STORED
    assert methods.compress_plain(b"x" * 300)[0] == ZSTD
    assert methods.compress_plain(TEXT)[0] == LZMA


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 65536, 65537])
def test_the_dictionary_holds_the_whole_frame(size: int, rng: np.random.Generator) -> None:
    # A repetition over the full distance is only found, and only understood, with a dictionary that large.
    half = rng.bytes(-(-size // 2))
    data = (half + half)[:size]
    payload = raw_lzma(data, 1 << max(12, (size - 1).bit_length()))
    assert methods.decompress_plain(LZMA, payload, size) == data


def test_equal_data_gives_equal_payloads() -> None:
    assert methods.compress_plain(TEXT) == methods.compress_plain(bytes(TEXT))


# -- hostile payloads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [LZMA, ZSTD])
@pytest.mark.parametrize("wrong", [-1, 1, 1000])
def test_another_number_of_bytes_than_promised_is_damaged(method: int, wrong: int) -> None:
    data = TEXT[:3000]
    with pytest.raises(CorruptError, match="damaged: "):
        methods.decompress_plain(method, payloads(data)[method], len(data) + wrong)


@pytest.mark.parametrize("method", [LZMA, ZSTD])
@pytest.mark.parametrize("junk", [b"\0", b"\1", b"junk", bytes(100)])
def test_bytes_after_the_end_are_damaged(method: int, junk: bytes) -> None:
    data = TEXT[:3000]
    with pytest.raises(CorruptError, match="damaged: "):
        methods.decompress_plain(method, payloads(data)[method] + junk, len(data))


@pytest.mark.parametrize("method", [LZMA, ZSTD])
def test_every_truncated_payload_is_damaged(method: int) -> None:
    data = TEXT[:300]
    payload = payloads(data)[method]
    for length in range(len(payload)):
        with pytest.raises(CorruptError, match="damaged: "):
            methods.decompress_plain(method, payload[:length], len(data))


@pytest.mark.parametrize("method", [LZMA, ZSTD])
def test_changed_and_random_payloads_give_damage_or_the_promised_size(method: int, rng: np.random.Generator) -> None:
    data = TEXT[:2000]
    payload = payloads(data)[method]
    changed = []
    for place in range(len(payload)):
        for flip in (1, 0x80, int(rng.integers(1, 256))):
            changed.append(payload[:place] + bytes([payload[place] ^ flip]) + payload[place + 1 :])
    changed += [rng.bytes(int(size)) for size in rng.integers(0, 60, 500)]
    refused = 0
    for hostile in changed:
        try:
            assert len(methods.decompress_plain(method, hostile, len(data))) == len(data)
        except CorruptError:
            refused += 1
    assert refused > len(changed) // 2


def test_a_payload_with_content_size_or_a_huge_one_is_no_foreign_error() -> None:
    with_size = raw_zstd(TEXT, write_content_size=1)
    assert with_size != raw_zstd(TEXT)
    with pytest.raises(CorruptError):
        methods.decompress_plain(ZSTD, with_size, len(TEXT) - 1)
    for claimed in (1 << 33, 1 << 46, (1 << 64) - 3):
        # Frame header with a content size of 8 bytes, then one empty last block.
        frame = b"\xc0\x00" + claimed.to_bytes(8, "little") + b"\x01\x00\x00"
        with pytest.raises(CorruptError):
            methods.decompress_plain(ZSTD, frame, 10)


def test_a_window_larger_than_any_frame_needs_is_damaged() -> None:
    window_log = 31
    frame = bytes([0x00, (window_log - 10) << 3]) + b"\x03\x00\x00x"  # a block of one repeated byte
    with pytest.raises(CorruptError):
        methods.decompress_plain(ZSTD, frame, 1 << 20)


BOMB = textwrap.dedent("""
    import lzma, resource, sys, zstandard
    from llmzip.codec import methods
    from llmzip.errors import CorruptError

    size = 1 << 28
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 12}]
    settings = zstandard.ZstdCompressionParameters.from_level(
        1, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=int(sys.argv[1])
    )
    bombs = {
        methods.LZMA: lzma.compress(bytes(size), lzma.FORMAT_RAW, filters=filters),
        methods.ZSTD: zstandard.ZstdCompressor(compression_params=settings).compress(bytes(size)),
    }
    import gc
    gc.collect()
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 26), resource.RLIM_INFINITY))
    for method, payload in bombs.items():
        try:
            methods.decompress_plain(method, payload, 1000)
        except CorruptError:
            print("refused")
""")


@pytest.mark.skipif(sys.platform != "linux", reason="needs an address space limit and /proc")
@pytest.mark.parametrize("content_size", ["0", "1"])
def test_a_small_payload_cannot_fill_the_memory(content_size: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOMB, content_size], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("refused\nrefused\n", "")


# -- what looks random -------------------------------------------------------------------------------------------------


def test_random_bytes_look_random_and_texts_do_not(rng: np.random.Generator) -> None:
    for size in (1 << 10, 1 << 15, 1 << 16, 1 << 20):
        assert methods.looks_random(rng.bytes(size))
        assert not methods.looks_random((TEXT * 30)[:size])
    assert not methods.looks_random("Ünïcödé, 模型, текст ".encode() * 100)


def test_short_bytes_never_look_random() -> None:
    assert not methods.looks_random(bytes(range(256)) + bytes(range(255)))
    assert methods.looks_random(bytes(range(256)) * 2)
