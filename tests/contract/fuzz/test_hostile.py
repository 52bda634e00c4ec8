"""Checks that headers which promise more than there is are refused soon, without the memory that they ask for."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmzip
from llmzip.format import reading
from llmzip.format.headers import LM, LZMA, MAGIC, STORED, ZSTD, FrameHeader, Header
from llmzip.format.numbers import pack_varint
from llmzip.format.writing import pack_frame, pack_header
from llmzip.models.embedded import DEFAULT

SEED = pack_header(Header(DEFAULT.code))
LARGEST = 1 << 26


def claimed(
    method: int, original: int, payload: bytes, tokens: int = 0, profile: int = 0, rows: int = 0, overlap: int = 0
) -> bytes:
    """An archive whose frame claims these numbers, with a right check."""
    header = FrameHeader(
        method, original, len(payload), num_tokens=tokens, profile=profile, rows=rows, overlap=overlap, last=True
    )
    return pack_frame(header, payload, 0x12345678, SEED)


# -- the parser --------------------------------------------------------------------------------------------------------


@pytest.fixture
def peak_bytes() -> Iterator[list[int]]:
    """Filled with the largest amount of memory that Python took during the test."""
    found: list[int] = []
    tracemalloc.start()
    yield found
    tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        # Payloads of 64 MiB that are not there.
        MAGIC + b"\x02" + bytes([STORED | 8 | 0x30]) + b"\x00\x00\x00\x04" * 2 + bytes(4) + b"abc",
        MAGIC + b"\x02" + bytes([LZMA | 8 | 0x30]) + b"\x00\x00\x00\x04" * 2 + bytes(4),
        MAGIC + b"\x12" + bytes([LM | 8 | 0x30]) + b"\0\0\x20\0" + b"\0\0\0\4" + b"\0\0\x20\0" + b"x" * 99,
        # A model record, an index and numbers of any length.
        MAGIC + b"\xf2" + pack_varint((1 << 35) - 1) + b"\x01\x01\x01",
        MAGIC + b"\xf2" + b"\xff" * 1000,
        MAGIC + b"\x12" + bytes([LM | 8 | 0xC0, 9, 3, 9]) + b"\xff" * 1000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("reader", ["decompress", "info", "pipe", "Decompressor"])
def test_claims_take_no_memory(data: bytes, reader: str, peak_bytes: list[int]) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *where: int) -> int:
            raise io.UnsupportedOperation("seek")

        tell = seek  # type: ignore[assignment]

    tracemalloc.reset_peak()
    try:
        if reader == "decompress":
            llmzip.decompress(data)
        elif reader == "info":
            llmzip.info(data)
        elif reader == "pipe":
            llmzip.info(Pipe(data))
        else:
            decompressor = llmzip.Decompressor()
            assert decompressor.decompress(data) == b"" and not decompressor.eof
    except llmzip.LLMZipError:
        pass
    assert tracemalloc.get_traced_memory()[1] < 3 << 20


def test_an_index_larger_than_its_frames_is_refused_before_it_is_read(peak_bytes: list[int]) -> None:
    first = pack_frame(FrameHeader(STORED, 1, 1), b"a", zlib.crc32(b"a"), MAGIC + b"\x02")
    second = pack_frame(FrameHeader(STORED, 1, 1, last=True), b"b", zlib.crc32(b"b"))
    source = io.BytesIO(first + second + b"\x07" + pack_varint(1 << 30) + bytes(5000))
    tracemalloc.reset_peak()
    with pytest.raises(llmzip.CorruptError, match="index is missing or of a wrong length"):
        list(reading.read_archives(source))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20


def test_many_tiny_archives_take_time_in_proportion() -> None:
    tiny = llmzip.compress(b"")
    started = time.perf_counter()
    assert llmzip.decompress(tiny * 10_000) == b""
    assert llmzip.info(tiny * 10_000).num_frames == 10_000
    assert time.perf_counter() - started < 20


# -- the decoders, in a process that may take little memory and little time --------------------------------------------

LIMITED = textwrap.dedent("""
    import json, resource, sys, time
    import llmzip
    from llmzip.inference.load import load
    from llmzip.models.choice import choose_model
    from llmzip.settings import EngineSettings

    archives = {name: bytes.fromhex(data) for name, data in json.load(sys.stdin).items()}
    load(choose_model("default"), EngineSettings())
    llmzip.decompress(llmzip.compress(b"something to warm up with"))
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
    for name, data in archives.items():
        started = time.perf_counter()
        try:
            answer = [f"{len(llmzip.decompress(data))} bytes", ""]
        except llmzip.LLMZipError as error:
            answer = ["refused", str(error)]
        except Exception as error:
            answer = ["foreign", repr(error)]
        print(json.dumps([name, time.perf_counter() - started, *answer]), flush=True)
""")

HOSTILE = {
    "stored": claimed(STORED, 5, b"abcde"),
    "lzma": claimed(LZMA, LARGEST, b"\x01\x00\x00a\x00"),
    "zstd": claimed(ZSTD, LARGEST, b"\x00\x58\x01\x00\x00"),
    "zstd, content size": claimed(ZSTD, LARGEST, b"\xc0\x00" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"),
    "more bytes than a frame may have": claimed(LM, (1 << 21) + 1, b"abc", 1000),
    "more tokens than bytes": claimed(LM, 1 << 20, b"abc", (1 << 20) + 1),
    "more rows than tokens": claimed(LM, 1 << 21, b"abc", 1000, 3, 1001, 5),
    "more rows than allowed": claimed(LM, 1 << 21, b"abc", 1 << 21, 3, 65536, 5),
    "rows without tokens": claimed(LM, 1 << 21, b"abc", 0, 3, 4096, 5),
    "rows that are too long": claimed(LM, 1 << 21, b"abc", 1 << 21, 3, 4, 5),
    "overlap as long as the context": claimed(LM, 1 << 21, b"abc", 1 << 21, 3, 64, 16384),
    "all rows of one token": claimed(LM, 1 << 21, b"abc", 1 << 12, 3, 1 << 12, 5),
    "all rows of many tokens": claimed(LM, 1 << 21, b"abc", 1 << 21, 3, 1 << 12, 5),
    "tokens": claimed(LM, 1 << 21, b"abc", 1 << 21, 2),
    "tokens that the payload cannot hold": claimed(LM, 1 << 21, bytes(range(64)), 1 << 21, 0),
    "tokens of no payload": claimed(LM, 40, b"", 40),
}


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[float, str, str]]:
    """What became of each archive: seconds, outcome and message; those that were never reached are missing."""
    path = os.pathsep.join(filter(None, [str(Path(llmzip.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", LIMITED],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    given = json.dumps({name: data.hex() for name, data in HOSTILE.items()})
    try:
        out, _ = process.communicate(given, timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    return {name: (seconds, outcome, message) for name, seconds, outcome, message in lines}


@pytest.mark.skipif(sys.platform != "linux", reason="needs an address space limit and /proc")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frames_are_refused_soon_and_in_little_memory(
    name: str, answers: dict[str, tuple[float, str, str]]
) -> None:
    seconds, outcome, message = answers[name]
    assert outcome == "refused", message
    assert message and "\n" not in message
    assert seconds < 30
