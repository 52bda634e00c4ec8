"""Small archives of every kind, with the texts that they stand for."""

from __future__ import annotations

import lzma
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
import zstandard

import llmzip
from llmzip.codec import rows
from llmzip.format import headers, writing
from llmzip.format.headers import FrameHeader, Header, ModelRecord
from llmzip.format.plan import RowPlan
from llmzip.inference import load
from llmzip.mixing.mixer import encode_bytes
from llmzip.models.choice import choose_model
from llmzip.models.embedded import DEFAULT
from llmzip.settings import EngineSettings

TEXT = b"The cat sat on the mat, and that was it."
REPEATED = b"one line and another, one line and another\n" * 4


@dataclass(frozen=True)
class Sample:
    """An archive, its text, and the places where it may be cut without anybody noticing."""

    archive: bytes
    text: bytes
    boundaries: tuple[int, ...] = ()


def plain_frame(method: int, data: bytes, payload: bytes, prefix: bytes, last: bool = True) -> bytes:
    return writing.pack_frame(
        FrameHeader(method, len(data), len(payload), last=last), payload, zlib.crc32(data), prefix
    )


def raw_lzma(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 4096}])


def raw_zstd(data: bytes) -> bytes:
    settings = zstandard.ZstdCompressionParameters.from_level(
        3, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=0
    )
    return zstandard.ZstdCompressor(compression_params=settings).compress(data)


def in_rows(text: bytes, num_rows: int, overlap: int) -> bytes:
    """An archive with a rows record, which llmzip reads but does not write."""
    model = load.load(choose_model("default"), EngineSettings())
    tokens = model.tokenizer.encode(text)
    payload, _ = rows.FrameCoder(model.engine).encode(tokens, RowPlan(len(tokens), num_rows, overlap))
    header = FrameHeader(
        headers.LM,
        len(text),
        len(payload),
        num_tokens=len(tokens),
        profile=3,
        rows=num_rows,
        overlap=overlap,
        last=True,
    )
    return writing.pack_frame(header, payload, zlib.crc32(text), writing.pack_header(Header(DEFAULT.code)))


def several_frames(data: bytes) -> bytes:
    compressor = llmzip.Compressor()
    archive = b""
    for part in (data[:9], data[9:11]):
        archive += compressor.compress(part) + compressor.flush(compressor.FLUSH_FRAME)
    return archive + compressor.compress(data[11:]) + compressor.flush()


def with_skip_frame() -> bytes:
    skip = writing.pack_frame(FrameHeader(headers.SKIP, 0, 7), b"my data", 0, writing.pack_header(Header()))
    text = plain_frame(headers.STORED, TEXT, TEXT, b"")
    return skip + text + writing.pack_index([(len(skip) - 4, 0, 0), (len(text), len(TEXT), TEXT.count(b"\n"))])


@pytest.fixture(scope="session")
def samples() -> dict[str, Sample]:
    """Every kind of archive, by name."""
    noise = np.random.default_rng(1).bytes(24)
    bare = writing.pack_header(Header())
    record = ModelRecord("some model", bytes(range(16)), bytes(range(16)), planes=2, context=512, start_token=0)
    user = writing.pack_header(Header(headers.USER_MODEL, record))
    lm = llmzip.compress(TEXT, level=1)
    stored = llmzip.compress(noise)
    short = b"The cat sat down."
    made = {
        "lm": Sample(lm, TEXT),
        "lm in rows": Sample(in_rows(TEXT, 5, 3), TEXT),
        "mixed": Sample(llmzip.compress(TEXT), TEXT),
        "adaptive": Sample(plain_frame(headers.MIXED, REPEATED, encode_bytes(REPEATED)[0], bare), REPEATED),
        "stored": Sample(stored, noise),
        "lzma": Sample(plain_frame(headers.LZMA, REPEATED, raw_lzma(REPEATED), bare), REPEATED),
        "zstd": Sample(plain_frame(headers.ZSTD, REPEATED, raw_zstd(REPEATED), bare), REPEATED),
        "empty": Sample(llmzip.compress(b""), b""),
        "several frames": Sample(several_frames(noise), noise),
        "skip frame": Sample(with_skip_frame(), TEXT),
        "concatenated": Sample(stored + llmzip.compress(short), noise + short, (len(stored),)),
        "model record": Sample(plain_frame(headers.STORED, noise, noise, user), noise),
    }
    assert llmzip.info(lm).archives[0].frames[0].method == "lm"
    assert llmzip.info(made["mixed"].archive).archives[0].frames[0].method == "mixed"
    assert len(llmzip.info(made["several frames"].archive).archives[0].frames) == 3
    return made
