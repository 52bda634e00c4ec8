"""`llmzip cat --salvage`: what is saved of damaged archives, and what is said about the rest."""

from __future__ import annotations

import io
import random
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmzip
from llmzip.format import headers, reading, writing
from llmzip.inference import load

from .conftest import ROOT

Call = Callable[..., tuple[int, bytes, str]]

NEWLINE = b"\n"
LINES = (ROOT / "corpora" / "prose-en.txt").read_bytes()[2000:5000]


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({})


def frames_of(parts: list[bytes]) -> bytes:
    """An archive with a stored frame of each part, and the index that several need."""
    made = b""
    entries = []
    for number, part in enumerate(parts):
        header = headers.FrameHeader(headers.STORED, len(part), len(part), last=number == len(parts) - 1)
        frame = writing.pack_frame(
            header, part, zlib.crc32(part), writing.pack_header(headers.Header()) if not number else b""
        )
        made += frame
        entries.append((writing.frame_bytes(header), len(part), part.count(b"\n")))
    return made + (writing.pack_index(entries) if len(parts) > 1 else b"")


PARTS = [b"The tide comes in. " * 3, b"It goes out. " * 5, b"The boats lie on the mud.\n"]


def test_salvage_of_a_file_that_ends_anywhere(call: Call, tmp_path: Path) -> None:
    """At every byte of two archives: whole frames come out, and what is lost is said with the file's name."""
    first, second = frames_of(PARTS), frames_of([b"Another archive."])
    whole = first + second
    ends = [frame.offset_bytes + frame.size_bytes for frame in reading.read_archives(io.BytesIO(whole))]
    texts = [*PARTS, b"Another archive."]
    begins = [sum(map(len, texts[:number])) for number in range(5)]
    assert len(ends) == 4 and ends[3] == len(whole)
    for size in range(len(whole) + 1):
        (tmp_path / "cut.llmz").write_bytes(whole[:size])
        code, out, err = call("cat", "--salvage", "cut.llmz")
        complete = sum(end <= size for end in ends)
        assert out == b"".join(texts[:complete]), size
        if size in (len(first), len(whole)):
            assert (code, err) == (0, "")
            continue
        assert (code, err.count("\n")) == (4, 2), size
        assert err.startswith("llmzip: cut.llmz: ") and ("ends at byte" in err or "file is empty" in err), (size, err)
        begin, number = begins[complete], complete if complete < 3 else 0
        line = f"from line {1 + out.count(NEWLINE)} on"
        if ends[2] <= size < len(first):
            assert "cut.llmz: no text is lost, but the archive is incomplete: truncated" in err
        elif complete in (2, 3) and " is not whole" in err:  # frames that say that they are the last
            lost = f"bytes {begin:,} to {begins[complete + 1]:,} are lost, {line}: frame {number}, the last one, of "
            assert f"{lost}{len(texts[complete])} bytes is not whole: truncated" in err
        elif " is not whole" in err:
            lost = f"the text from byte {begin:,} on is lost, {line}: frame {number} of {len(texts[complete])} bytes"
            assert f"{lost} is not whole: truncated" in err
        else:  # inside the headers of an archive or a frame
            assert f"the text from byte {begin:,} on is lost, {line}: truncated" in err
    # Most of a frame is its payload, whose size its header has told.
    (tmp_path / "cut.llmz").write_bytes(whole[: ends[1] - 20])
    assert "frame 1 of 65 bytes is not whole" in call("cat", "--salvage", "cut.llmz")[2]


def test_salvage_up_to_a_damaged_header(call: Call, tmp_path: Path) -> None:
    whole = bytearray(frames_of(PARTS))
    ends = [frame.offset_bytes + frame.size_bytes for frame in reading.read_archives(io.BytesIO(bytes(whole)))]
    del whole[len(whole) - 1 :]  # without an index nothing is found after it
    whole[ends[0]] ^= 0x07  # the method of the second frame
    (tmp_path / "bad.llmz").write_bytes(whole)
    code, out, err = call("cat", "--salvage", "bad.llmz")
    assert (code, out) == (4, PARTS[0])
    assert (
        err.startswith("llmzip: bad.llmz: the text from byte 57 on is lost, from line 1 on: frame 1: damaged")
        and err.count("\n") == 2
    )
    (tmp_path / "foreign").write_bytes(b"no archive")
    assert call("cat", "--salvage", "foreign") == (1, b"", "llmzip: foreign: not an llmzip archive\n")
    code, out, err = call("cat", "bad.llmz")
    assert (code, out) == (4, b"") and err.startswith("llmzip: bad.llmz: frame 1: damaged")


def stored(payload: bytes, method: int, text: bytes) -> bytes:
    """An archive of one frame of a plain method."""
    header = headers.FrameHeader(method, len(text), len(payload), last=True)
    return writing.pack_frame(header, payload, zlib.crc32(text), writing.pack_header(headers.Header()))


def test_by_the_index_a_damaged_header_costs_one_frame(call: Call, tmp_path: Path) -> None:
    whole = bytearray(frames_of(PARTS))
    ends = [frame.offset_bytes + frame.size_bytes for frame in reading.read_archives(io.BytesIO(bytes(whole)))]
    whole[ends[0]] ^= 0x07
    (tmp_path / "bad.llmz").write_bytes(whole)
    code, out, err = call("cat", "--salvage", "bad.llmz")
    assert (code, out) == (4, PARTS[0] + PARTS[2])
    begin, end = len(PARTS[0]), len(PARTS[0] + PARTS[1])
    first, last = err.splitlines()
    assert first.startswith(f"llmzip: bad.llmz: bytes {begin} to {end} are lost, from line 1 on: frame 1: damaged")
    assert last == (
        f"llmzip: bad.llmz: saved {len(out)} bytes with 1 line breaks; lost {end - begin} bytes with 0 line breaks"
    )


def test_lines_are_counted_by_the_index(call: Call, tmp_path: Path) -> None:
    parts = [b"one\ntwo\n", b"three\n", b"four\nfive", b"six\n", b"seven"]
    whole = bytearray(frames_of(parts))
    for number in (1, 3):
        whole[whole.index(parts[number])] ^= 1
    (tmp_path / "bad.llmz").write_bytes(whole)
    code, out, err = call("cat", "--salvage", "bad.llmz")
    assert (code, out) == (4, parts[0] + parts[2] + parts[4])
    first, second, last = err.splitlines()
    assert "bytes 8 to 14 are lost, from line 3 on: " in first
    assert "bytes 23 to 27 are lost, from line 5 on: " in second
    assert last.endswith("saved 22 bytes with 3 line breaks; lost 10 bytes with 2 line breaks")


def test_without_an_index_lines_are_bounded_after_a_loss(call: Call, tmp_path: Path) -> None:
    whole = bytearray(frames_of([b"one\ntwo\n"]) + frames_of([b"three\n"]) + frames_of([b"four"]))
    whole[whole.index(b"one")] ^= 1
    whole[whole.index(b"four")] ^= 1
    (tmp_path / "bad.llmz").write_bytes(whole)
    code, out, err = call("cat", "--salvage", "bad.llmz")
    assert (code, out) == (4, b"three\n")
    first, second, last = err.splitlines()
    assert "bytes 0 to 8 are lost, from line 1 on: " in first
    assert "bytes 14 to 18 are lost, from line 2 at the earliest: " in second
    assert last.endswith("saved 6 bytes with 1 line breaks; lost 12 bytes with 0 to 12 line breaks")


def test_nothing_unverified_comes_out_unasked(call: Call, tmp_path: Path) -> None:
    whole = bytearray(frames_of(PARTS))
    whole[whole.index(PARTS[1])] ^= 1
    (tmp_path / "bad.llmz").write_bytes(whole)
    assert call("cat", "--salvage", "bad.llmz")[1] == PARTS[0] + PARTS[2]
    code, out, err = call("cat", "--salvage", "--unverified", "bad.llmz")
    assert (code, out) == (4, PARTS[0] + b"H" + PARTS[1][1:] + PARTS[2])
    begin, end = len(PARTS[0]), len(PARTS[0] + PARTS[1])
    assert f"unverified: bytes {begin} to {end} of the output, with 0 line breaks, are what still decodes" in err
    assert err.endswith(f"; {end - begin} of the bytes written passed no checksum\n")
    code, out, err = call("cat", "--unverified", "bad.llmz")
    assert (code, out) == (2, b"") and "--unverified needs --salvage" in err


@pytest.mark.parametrize("method", [headers.STORED, headers.LZMA, headers.ZSTD])
def test_the_beginning_of_a_plain_frame(call: Call, tmp_path: Path, method: int) -> None:
    from llmzip.codec import methods

    text = b"".join(b"%d " % random.Random(n).randrange(10**9) for n in range(40_000))
    whole = stored(dict(methods.plain_payloads(text))[method], method, text)
    assert llmzip.decompress(whole) == text
    for cut in (len(whole) // 2, len(whole) * 9 // 10):
        for damaged in (whole[:cut], whole[:cut] + bytes(200) + whole[cut + 200 :]):
            (tmp_path / "bad.llmz").write_bytes(damaged)
            assert call("cat", "--salvage", "bad.llmz")[:2] == (4, b"")
            code, out, _ = call("cat", "--salvage", "--unverified", "bad.llmz")
            same = next((n for n, (a, b) in enumerate(zip(out, text, strict=False)) if a != b), len(out))
            assert code == 4 and same > len(text) * cut // len(whole) * 0.6 and len(out) <= len(text)
            assert same == len(out) or method == headers.STORED or len(damaged) == len(whole)


def archive_of(call: Call, tmp_path: Path, *options: str) -> bytes:
    """An archive of LINES in one frame that a model codes."""
    (tmp_path / "a.txt").write_bytes(LINES)
    assert call("-f", *options, "a.txt")[0] == 0
    whole = (tmp_path / "a.txt.llmz").read_bytes()
    (frame,) = reading.read_archives(io.BytesIO(whole))
    assert frame.header.uses_model
    return whole


@pytest.mark.parametrize("options", [("-m", "small", "-1"), ("-m", "small", "-6")], ids=" ".join)
@pytest.mark.parametrize("rows", [1, 4])
def test_of_a_frame_that_is_cut_off_only_what_its_bytes_determine(
    call: Call, tmp_path: Path, options: tuple[str, ...], rows: int
) -> None:
    whole = archive_of(call, tmp_path, *options, "--rows", str(rows))
    sizes = []
    for share in (0.2, 0.6, 0.95):
        (tmp_path / "cut.llmz").write_bytes(whole[: int(len(whole) * share)])
        assert call("cat", "--salvage", "cut.llmz")[1] == b""
        code, out, err = call("cat", "--salvage", "--unverified", "cut.llmz")
        assert code == 4 and ("pieces" in err) == (rows > 1 and len(out) > 0)
        if rows == 1:
            assert LINES.startswith(out)
        else:
            assert LINES.startswith(out[: len(out) // 5])
        sizes.append(len(out))
    assert 0 < sizes[0] < sizes[1] < sizes[2] < len(LINES)
    assert abs(sizes[1] / len(LINES) - 0.6) < 0.25


def test_without_a_model_too(call: Call, tmp_path: Path) -> None:
    from llmzip.mixing.mixer import encode_bytes

    payload, _ = encode_bytes(LINES)
    header = headers.FrameHeader.adaptive(len(LINES), len(payload))
    whole = writing.pack_frame(
        headers.with_last(header, True), payload, zlib.crc32(LINES), writing.pack_header(headers.Header())
    )
    (tmp_path / "bad.llmz").write_bytes(whole[: len(whole) // 2])
    out = call("cat", "--salvage", "--unverified", "bad.llmz")[1]
    assert LINES.startswith(out) and len(out) > len(LINES) // 5
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0x40
    (tmp_path / "bad.llmz").write_bytes(spoilt)
    out = call("cat", "--salvage", "--unverified", "bad.llmz")[1]
    assert out[: len(LINES) // 5] == LINES[: len(LINES) // 5] and len(out) <= len(LINES)
    out.decode("utf-8")


def test_of_a_spoilt_frame_each_row_up_to_the_first_nonsense(call: Call, tmp_path: Path) -> None:
    whole = archive_of(call, tmp_path, "-m", "bytes", "-2", "--rows", "16")
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0x10
    (tmp_path / "bad.llmz").write_bytes(spoilt)
    code, out, err = call("cat", "--salvage", "--unverified", "bad.llmz")
    found = re.search(r"unverified: bytes 0 to ([\d,]+) of the output in 16 pieces", err)
    assert code == 4 and found and int(found[1].replace(",", "")) == len(out)
    piece = len(out) // 16
    quarter = min(piece, len(LINES) // 16 // 4)
    assert LINES.startswith(out[:quarter]) and quarter > 20
    assert len(out) < len(LINES)


def test_windows(call: Call, tmp_path: Path) -> None:
    text = LINES[:1500]
    (tmp_path / "a.txt").write_bytes(text)
    assert call("-m", "small", "--window-bits", "64", "a.txt")[0] == 0
    whole = (tmp_path / "a.txt.llmz").read_bytes()
    (tmp_path / "a.txt.llmz").write_bytes(whole[: len(whole) // 2])
    assert call("cat", "--salvage", "a.txt.llmz")[:2] == (4, b"")
    code, out, _ = call("cat", "--salvage", "--unverified", "a.txt.llmz")
    assert code == 4 and text.startswith(out) and len(out) > len(text) // 4


def test_random_damage_gives_lines_and_no_more_than_there_was(call: Call, tmp_path: Path) -> None:
    """Whatever is damaged: verified text is right, the status says so, and nothing else than messages comes out."""
    rng = random.Random(7)
    parts = [LINES[n * 300 : n * 300 + 300] for n in range(6)]
    whole: Any = frames_of(parts) + frames_of(parts[:1])
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(4, len(damaged)) :]
        (tmp_path / "bad.llmz").write_bytes(damaged)
        code, verified, err = call("cat", "--salvage", "bad.llmz")
        assert code in (0, 1, 4) and all(line.startswith("llmzip: bad.llmz: ") for line in err.splitlines())
        assert (code == 0) == (not err)
        place = 0
        for part in [*parts, parts[0]]:
            if verified[place : place + len(part)] == part:
                place += len(part)
        assert place == len(verified)
        assert len(call("cat", "--salvage", "--unverified", "bad.llmz")[1]) <= 7 * 300


# -- carried models ----------------------------------------------------------------------------------------------------

LOST_MODEL = (
    "llmzip: x: a model that the file carries is lost, and looked for on this machine: damaged: the checksum of a "
    "carried model is wrong"
)


@pytest.fixture(scope="module")
def carrying(lacking_model: Path) -> bytes:
    """A carried model and an archive of three frames that need it."""
    return llmzip.compress(LINES, level=1, model=lacking_model, frame_bytes=1000, with_model=True)


@pytest.fixture
def damaged(carrying: bytes) -> Iterator[bytes]:
    """That, with a wrong byte in the model's weights, and nothing in memory."""
    load.forget()
    yield carrying[:500_000] + bytes([carrying[500_000] ^ 1]) + carrying[500_001:]
    load.forget()


def test_a_damaged_carried_model_is_looked_for_elsewhere(
    call: Call, damaged: bytes, lacking_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(damaged)
    assert call("-t", "x")[0] == 4
    code, out, err = call("cat", "--salvage", "-m", str(lacking_model), "x")
    assert (code, out) == (4, LINES)
    saved = f"llmzip: x: saved 3,000 bytes with {LINES.count(NEWLINE)} line breaks; lost 0 bytes"
    assert err.splitlines() == [LOST_MODEL, saved]
    # With the index a damaged header of a frame costs its frame alone, here too.
    frames = list(reading.read_archives(io.BytesIO(damaged), allow_damaged_models=True))
    assert len(frames) == 3
    place = frames[1].offset_bytes
    (tmp_path / "x").write_bytes(damaged[:place] + bytes([damaged[place] ^ 7]) + damaged[place + 1 :])
    code, out, err = call("cat", "--salvage", "-m", str(lacking_model), "x")
    assert (code, out) == (4, LINES[:1000] + LINES[2000:])
    assert err.startswith(f"{LOST_MODEL}\nllmzip: x: bytes 1,000 to 2,000 are lost, from line ")


@pytest.mark.parametrize("more", [(), ("--unverified",)])
def test_without_a_damaged_carried_model_the_other_archives_are_saved(
    call: Call, damaged: bytes, tmp_path: Path, more: tuple[str, ...]
) -> None:
    before, after = frames_of(PARTS), frames_of(PARTS[:1])
    (tmp_path / "x").write_bytes(before + damaged + after)
    code, out, err = call("cat", "--salvage", *more, "x")
    assert (code, out) == (4, b"".join(PARTS) + PARTS[0])
    lines = err.splitlines()
    begin = len(b"".join(PARTS))
    assert lines[0] == LOST_MODEL and len(lines) == 5
    for number in range(3):
        lost = f"bytes {begin + 1000 * number:,} to {begin + 1000 * (number + 1):,} are lost, from line "
        assert lines[number + 1].startswith(f"llmzip: x: {lost}")
        assert ": the carried model is damaged, and nowhere else: needs model 'small-lacking' with digest" in lines[1]
    assert lines[-1].startswith(f"llmzip: x: saved {len(out)} bytes with 1 line breaks; lost 3,000 bytes with ")


def test_an_embedded_model_that_was_carried_is_embedded_still(call: Call, tmp_path: Path) -> None:
    whole = llmzip.compress(LINES, level=1, model="small", with_model=True)
    (tmp_path / "x").write_bytes(whole[:1000] + bytes(1000) + whole[2000:])
    code, out, err = call("cat", "--salvage", "x")
    assert (code, out, err.splitlines()[0]) == (4, LINES, LOST_MODEL)


def test_windows_without_their_carried_model_are_named(call: Call, lacking_model: Path, tmp_path: Path) -> None:
    from llmzip.codec.writer import ArchiveWriter
    from llmzip.settings import CompressSettings

    writer = ArchiveWriter(CompressSettings(model=lacking_model, window_bits=512, with_model=True))
    whole = writer.write(LINES) + writer.finish()
    load.forget()
    (tmp_path / "x").write_bytes(whole[:1000] + bytes(1000) + whole[2000:])
    for more in ((), ("--unverified",)):
        code, out, err = call("cat", "--salvage", *more, "x")
        assert (code, out) == (4, b"")
        lines = err.splitlines()
        assert lines[0] == LOST_MODEL and len(lines) == 3
        assert "bytes 0 to 3,000 are lost, from line 1 on: frame 0: the carried model is damaged, and" in lines[1]
    assert call("cat", "--salvage", "-m", str(lacking_model), "x")[1] == LINES


def test_a_damaged_head_of_a_carried_model_ends_it(call: Call, carrying: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(frames_of(PARTS) + carrying[:10] + b"?" + carrying[11:])
    code, out, err = call("cat", "--salvage", "x")
    assert (code, out) == (4, b"".join(PARTS))
    assert "the text from byte 148 on is lost, from line 2 on: damaged: the checksum of a carried model's header" in err


@pytest.mark.parametrize("name", ["good-carried-model", "good-carried-again"])
def test_no_damage_to_a_carried_model_crashes(call: Call, tmp_path: Path, name: str) -> None:
    whole = (ROOT / "tests" / "contract" / "vectors" / f"{name}.llmz").read_bytes()
    rng = random.Random(7)
    statuses = set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        (tmp_path / "x").write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        load.forget()
        code, _, err = call("cat", "--salvage", *rng.choice([(), ("--unverified",)]), "x")
        assert code in (1, 3, 4) and err.startswith("llmzip: x: "), (code, err)
        statuses.add(code)
    assert 4 in statuses
