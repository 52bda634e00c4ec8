"""Checks that bytes in any pieces give the same as in one: writing, reading, frames, archives in a row, limits."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmzip

EXAMPLES = settings.default.max_examples if settings.default else 30

NOISE = bytes((n * n * 7 + n * 31 + (n >> 3) * 13) & 0xFF for n in range(5000))
"""No method compresses it, so it costs no time; every piece of it looks different."""

PHRASE = b"The ferry was late again."
CUTS = st.lists(st.integers(1, 1500), min_size=1, max_size=12)
FLUSH_FRAME = llmzip.Compressor.FLUSH_FRAME


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """Data cut into pieces of these sizes, again and again."""
    out, begin, n = [], 0, 0
    while begin < len(data):
        out.append(data[begin : begin + sizes[n % len(sizes)]])
        begin += sizes[n % len(sizes)]
        n += 1
    return out


def frames_of(parts: list[bytes]) -> bytes:
    """An archive with one frame for each part."""
    compressor = llmzip.Compressor()
    archive = b"".join(compressor.compress(part) + compressor.flush(FLUSH_FRAME) for part in parts[:-1])
    return archive + compressor.compress(parts[-1]) + compressor.flush()


@given(sizes=CUTS)
def test_any_writes_give_the_one_shot_archive(sizes: list[int]) -> None:
    expected = llmzip.compress(NOISE)
    compressor = llmzip.Compressor()
    assert b"".join(compressor.compress(part) for part in pieces(NOISE, sizes)) + compressor.flush() == expected
    sink = io.BytesIO()
    with llmzip.open(sink, "wb") as file:
        for part in pieces(NOISE, sizes):
            assert file.write(part) == len(part)
        assert file.tell() == len(NOISE)
    assert sink.getvalue() == expected


@given(parts=st.lists(st.binary(max_size=9), min_size=1, max_size=6))
@settings(max_examples=EXAMPLES // 2)
def test_any_pieces_of_text_give_the_one_shot_archive(parts: list[bytes]) -> None:
    compressor = llmzip.Compressor()
    written = b"".join(compressor.compress(part) for part in parts) + compressor.flush()
    assert written == llmzip.compress(b"".join(parts))


@pytest.fixture(scope="module")
def archives() -> dict[str, tuple[bytes, bytes]]:
    """Archives of one frame and of many, and several archives in a row, with their texts."""
    parts = pieces(NOISE, [1, 700, 13, 255])
    return {
        "one frame": (llmzip.compress(NOISE), NOISE),
        "text": (llmzip.compress(PHRASE), PHRASE),
        "many frames": (frames_of(parts), NOISE),
        "empty": (llmzip.compress(b""), b""),
        "archives in a row": (
            llmzip.compress(b"") + frames_of(parts) + llmzip.compress(NOISE[:300]),
            NOISE + NOISE[:300],
        ),
    }


SINGLE = ["one frame", "text", "many frames", "empty"]


@pytest.mark.parametrize("name", SINGLE)
def test_any_pieces_of_an_archive_decompress(name: str, archives: dict[str, tuple[bytes, bytes]]) -> None:
    archive, text = archives[name]

    @settings(max_examples=EXAMPLES // 2)
    @given(sizes=CUTS, limit=st.one_of(st.just(-1), st.integers(0, 900)), rest=st.binary(max_size=5))
    def check(sizes: list[int], limit: int, rest: bytes) -> None:
        decompressor = llmzip.Decompressor()
        out, calls = b"", 0
        fed = pieces(archive + rest, sizes)
        while not decompressor.eof:
            calls += 1
            assert calls < 50_000, "no end in sight"
            # A limit of 0 makes no progress on its own, so now and then everything may come.
            most = -1 if limit == 0 and calls % 3 == 0 else limit
            part = decompressor.decompress(fed.pop(0) if fed else b"", most)
            assert most < 0 or len(part) <= most
            out += part
            assert not (decompressor.needs_input and decompressor.eof)
        assert out == text
        assert decompressor.unused_data + b"".join(fed) == rest
        with pytest.raises(EOFError):
            decompressor.decompress(b"")

    check()


@pytest.mark.parametrize("name", SINGLE)
def test_one_byte_at_a_time(name: str, archives: dict[str, tuple[bytes, bytes]]) -> None:
    archive, text = archives[name]
    decompressor = llmzip.Decompressor()
    out = b""
    for place in range(len(archive)):
        assert not decompressor.eof and decompressor.needs_input and decompressor.unused_data == b""
        out += decompressor.decompress(archive[place : place + 1])
    assert out == text and decompressor.eof and not decompressor.needs_input


READS = st.lists(
    st.tuples(st.sampled_from(["read", "read1", "readinto", "readline", "peek"]), st.integers(0, 1200)),
    min_size=1,
    max_size=10,
)


@pytest.mark.parametrize("name", ["one frame", "many frames", "archives in a row", "empty"])
def test_any_reads_give_the_one_shot_text(name: str, archives: dict[str, tuple[bytes, bytes]]) -> None:
    archive, text = archives[name]

    @given(reads=READS, whole=st.booleans())
    def check(reads: list[tuple[str, int]], whole: bool) -> None:
        file: Any = llmzip.open(io.BytesIO(archive))
        out = b""
        while True:
            before = len(out)
            for how, size in reads:
                if how == "readinto":
                    buffer = bytearray(size)
                    count = file.readinto(buffer)
                    out += buffer[:count]
                elif how == "peek":
                    ahead = file.peek(size)
                    assert text[len(out) :].startswith(ahead) and (ahead or len(out) == len(text))
                elif how == "readline":
                    line = file.readline(size)
                    assert b"\n" not in line[:-1]
                    out += line
                else:
                    out += getattr(file, how)(size)
                assert file.tell() == len(out)
            if whole or len(out) == before:
                break
        assert text.startswith(out)
        assert out + file.read() == text
        assert file.read() == b"" and file.read1() == b"" and file.readline() == b""

    check()


@given(places=st.lists(st.tuples(st.integers(-6000, 6000), st.sampled_from([0, 1, 2]), st.integers(0, 50)), max_size=8))
def test_seeks_land_where_they_say(
    places: list[tuple[int, int, int]], archives: dict[str, tuple[bytes, bytes]]
) -> None:
    archive, text = archives["archives in a row"]
    file: Any = llmzip.open(io.BytesIO(archive))
    position = 0
    for offset, whence, size in places:
        target = offset + (0, position, len(text))[whence]
        if target < 0:
            with pytest.raises(ValueError, match="negative seek position"):
                file.seek(offset, whence)
            position = file.tell()
            continue
        position = min(target, len(text))
        assert file.seek(offset, whence) == position == file.tell()
        assert file.read(size) == text[position : position + size]
        position = file.tell()


@given(parts=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5))
@settings(max_examples=EXAMPLES // 2)
def test_concatenated_archives_give_concatenated_texts(parts: list[bytes]) -> None:
    archive = b"".join(llmzip.compress(part) for part in parts)
    assert llmzip.decompress(archive) == b"".join(parts)
    info = llmzip.info(archive)
    assert [sum(frame.original_bytes for frame in entry.frames) for entry in info.archives] == [
        len(part) for part in parts
    ]
    decoded, rest = [], archive
    while rest:
        decompressor = llmzip.Decompressor()
        decoded.append(decompressor.decompress(rest))
        rest = decompressor.unused_data
    assert decoded == parts


@given(parts=st.lists(st.binary(max_size=30), min_size=1, max_size=6))
@settings(max_examples=EXAMPLES // 2)
def test_frames_that_end_anywhere_give_the_text(parts: list[bytes]) -> None:
    archive = frames_of(parts)
    assert llmzip.decompress(archive) == b"".join(parts)
    compressor = llmzip.Compressor()
    flushed = compressor.flush(FLUSH_FRAME)
    for part in parts:
        flushed += compressor.compress(part) + compressor.flush(FLUSH_FRAME) + compressor.flush(FLUSH_FRAME)
    flushed += compressor.flush()
    assert llmzip.decompress(flushed) == b"".join(parts)
    assert llmzip.info(flushed).original_bytes == len(b"".join(parts))


@given(limit=st.integers(0, 6000))
def test_output_above_the_limit_is_refused(limit: int, archives: dict[str, tuple[bytes, bytes]]) -> None:
    for archive, text in archives.values():
        if limit >= len(text):
            assert llmzip.decompress(archive, max_output_size=limit) == text
        else:
            with pytest.raises(llmzip.ResourceError, match=f"larger than max_output_size, {limit} bytes"):
                llmzip.decompress(archive, max_output_size=limit)


def test_what_a_frame_holds_can_be_read_as_soon_as_it_ended() -> None:
    compressor, decompressor = llmzip.Compressor(), llmzip.Decompressor()
    for message in (NOISE[:40], PHRASE, NOISE[40:90]):
        packet = compressor.compress(message) + compressor.flush(FLUSH_FRAME)
        assert decompressor.decompress(packet) == message
    assert decompressor.decompress(compressor.flush()) == b"" and decompressor.eof
