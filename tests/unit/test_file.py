"""What file objects and incremental objects do when something goes wrong: each case was a fault once."""

from __future__ import annotations

import io
import shutil
import threading
from typing import Any

import pytest

import llmzip

FRAME = llmzip.Compressor.FLUSH_FRAME


def two_frames(first: bytes, second: bytes) -> bytes:
    compressor = llmzip.Compressor()
    return compressor.compress(first) + compressor.flush(FRAME) + compressor.compress(second) + compressor.flush()


def damaged(archive: bytes) -> bytes:
    return archive[:-1] + bytes([archive[-1] ^ 1])


def test_a_decompressor_never_looks_finished_after_an_error():
    decompressor = llmzip.Decompressor()
    with pytest.raises(llmzip.CorruptError):
        decompressor.decompress(damaged(llmzip.compress(b"hello")))
    assert not decompressor.eof
    with pytest.raises(llmzip.CorruptError):
        decompressor.decompress(b"1234")


def test_needs_input_is_false_while_a_whole_frame_waits():
    decompressor = llmzip.Decompressor()
    out = decompressor.decompress(two_frames(b"ab" * 50, b"cd" * 50), 10)
    while not decompressor.eof and not decompressor.needs_input:
        out += decompressor.decompress(b"", 30)
    assert decompressor.eof
    assert out == b"ab" * 50 + b"cd" * 50


def test_a_damaged_file_stays_damaged():
    file = llmzip.open(io.BytesIO(damaged(llmzip.compress(b"hello"))))
    for _ in range(2):
        with pytest.raises(llmzip.CorruptError):
            file.read()


def test_verified_text_before_the_damage_is_handed_out_to_who_reads_in_pieces():
    archive = two_frames(b"x" * 100, b"y" * 100)[:-30]
    sink = io.BytesIO()
    with pytest.raises(llmzip.TruncatedError):
        shutil.copyfileobj(llmzip.open(io.BytesIO(archive)), sink, 64)
    assert sink.getvalue() == b"x" * 100


def test_who_asks_for_everything_gets_everything_or_an_error():
    with pytest.raises(llmzip.TruncatedError):
        llmzip.open(io.BytesIO(two_frames(b"x" * 100, b"y" * 100)[:-30])).read()


class ShortWriter(io.BytesIO):
    """A raw file may take less than it is given."""

    def write(self, data: Any) -> int:
        return super().write(bytes(data)[:5])


def test_a_file_that_takes_little_at_a_time_gets_everything():
    sink = ShortWriter()
    with llmzip.open(sink, "wb") as file:
        file.write(b"some text, " * 20)
    assert llmzip.decompress(sink.getvalue()) == b"some text, " * 20


def test_two_threads_may_use_one_model():
    texts = [
        b"The ferry was late again, and nobody minded. " * 2,
        b"Nobody minded; the ferry was late again, they said.",
    ]
    expected = [llmzip.compress(text) for text in texts]
    found: dict[int, bytes] = {}

    def work(number: int) -> None:
        found[number] = llmzip.compress(texts[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[0], found[1]] == expected
