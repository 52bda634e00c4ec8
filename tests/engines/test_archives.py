"""Checks that threads and batch sizes change no bit of an archive made with the embedded model."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

import llmzip
from llmzip.codec import reader, writer
from llmzip.settings import CompressSettings, DecompressSettings, EngineSettings

TEXT = Path(reader.__file__).read_bytes()[:2500]


def compressed(level: int, engine: EngineSettings) -> bytes:
    sink = io.BytesIO()
    report = writer.compress_stream(io.BytesIO(TEXT), sink, CompressSettings(level=level, engine=engine))
    assert [frame.method for frame in report.frames] == ["lm" if level == 1 else "mixed"]
    assert report.compressed_bytes == len(sink.getvalue()) and report.original_bytes == len(TEXT)
    return sink.getvalue()


@pytest.mark.parametrize("level", [1, 6])
def test_archives_are_equal_for_every_batch_size_and_thread_count(level: int) -> None:
    plain = compressed(level, EngineSettings(threads=2))
    for engine in (
        EngineSettings(threads=1),
        EngineSettings(threads=2, batch_tokens=37),
        EngineSettings(threads=1, batch_tokens=256),
        EngineSettings(threads=3, batch_tokens=100_000),
    ):
        assert hashlib.sha256(compressed(level, engine)).digest() == hashlib.sha256(plain).digest(), engine


@pytest.mark.parametrize("threads", [1, 2])
def test_archives_decode_with_any_thread_count(threads: int) -> None:
    archive = compressed(1, EngineSettings(threads=3 - threads))
    sink = io.BytesIO()
    settings = DecompressSettings(engine=EngineSettings(threads=threads, batch_tokens=64 * threads))
    report = reader.decompress_stream(io.BytesIO(archive), sink, settings)
    assert sink.getvalue() == TEXT
    assert report.compressed_bytes == len(archive) and report.characters == len(TEXT.decode())


def test_levels_differ_in_rows_and_the_mixer_only() -> None:
    archives = {level: compressed(level, EngineSettings()) for level in range(1, 10)}
    frames = {level: llmzip.info(archive).archives[0].frames[0] for level, archive in archives.items()}
    assert [frame.method for frame in frames.values()] == ["lm"] + 8 * ["mixed"]
    assert len({archives[level] for level in range(1, 9)}) >= 5
    assert archives[8] == archives[9], "level 9 has fewer rows only where there is more text"
    assert len(archives[8]) <= len(archives[6]) <= len(archives[2]) <= len(archives[1])
