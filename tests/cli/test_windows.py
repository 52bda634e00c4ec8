"""The commands cat and windows, and --window-bits: parts of texts, tables, tokens, damage, wrong use."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmzip.format import headers, reading, writing

TEXT = "The tide comes in, and the tide goes out; Größe, 世界. The harbour master writes it down.\n".encode() * 9
Call = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({"tide.txt": TEXT})


@pytest.fixture
def archive(call: Call, tmp_path: Path) -> Path:
    assert call("-m", "small", "--window-bits", "40", "tide.txt")[0] == 0
    return tmp_path / "tide.txt.llmz"


def out(call: Call, *arguments: str) -> bytes:
    code, output, err = call(*arguments)
    assert (code, err) == (0, "")
    return output


def test_parts(call: Call, archive: Path) -> None:
    assert out(call, "-dc", archive.name) == out(call, "cat", archive.name) == TEXT
    for begin, end in ((0, 1), (100, 300), (len(TEXT) - 1, len(TEXT)), (5, 5), (7, 99_999)):
        assert out(call, "cat", "--range", f"{begin}:{end}", archive.name) == TEXT[begin:end]
    assert out(call, "cat", "--range", ":10", archive.name) == TEXT[:10]
    assert out(call, "cat", "--range", "700:", archive.name) == TEXT[700:]
    facts = json.loads(out(call, "windows", "--json", archive.name))
    count = facts["windows"]
    parts = [out(call, "cat", "--window", str(number), archive.name) for number in (0, 1, 7, count - 1)]
    assert TEXT.startswith(parts[0] + parts[1]) and TEXT.endswith(parts[3])
    assert out(call, "cat", "--window", ":8", archive.name).endswith(parts[2])
    assert out(call, "cat", "--window", "0:", archive.name) == TEXT


def test_parts_of_other_archives_and_several(call: Call, archive: Path, tmp_path: Path) -> None:
    noise = os.urandom(2000)
    (tmp_path / "noise").write_bytes(noise)
    assert call("noise")[0] == 0
    both = (tmp_path / "noise.llmz").read_bytes() + archive.read_bytes()
    (tmp_path / "both.llmz").write_bytes(both)
    assert out(call, "cat", "--range", "1900:2100", "both.llmz") == (noise + TEXT)[1900:2100]
    assert out(call, "cat", "--window", "0:", "both.llmz") == TEXT


def test_a_range_reads_no_more_than_it_needs(call: Call, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    facts = json.loads(out(call, "windows", "--json", archive.name))
    data[4 + 30 : 4 + 30 + 5 * (facts["windows"] - 12)] = bytes(5 * (facts["windows"] - 12))
    archive.write_bytes(data)
    assert (
        out(call, "cat", "--window", "0:3", archive.name)
        == TEXT[: len(out(call, "cat", "--window", "0:3", archive.name))]
    )
    assert call("-t", archive.name)[0] == 4


def test_salvage(call: Call, tmp_path: Path) -> None:
    text = TEXT * 8
    (tmp_path / "long.txt").write_bytes(text)
    assert call("-m", "small", "--window-bits", "128", "long.txt")[0] == 0
    path = tmp_path / "long.txt.llmz"
    assert out(call, "cat", "--salvage", path.name) == text
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    code, rest, err = call("cat", "--salvage", path.name)
    assert code == 4 and err.count("\n") == 1
    assert "are lost: frame 0: damaged: windows 0 to " in err
    lost = int(err.split("bytes 0 to ")[1].split()[0].replace(",", ""))
    assert 0 < lost < len(text) and rest == text[lost:]
    assert out(call, "cat", "--range", f"{lost}:", path.name) == text[lost:]
    code, rest, err = call("cat", "--range", "0:9", path.name)
    assert (code, rest) == (4, b"") and "damaged: windows with bytes 0 to" in err


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
        assert (code, err.count("\n")) == (4, 1), size
        assert err.startswith("llmzip: cut.llmz: ") and ("ends at byte" in err or "file is empty" in err), (size, err)
        begin, number = begins[complete], complete if complete < 3 else 0
        if ends[2] <= size < len(first):
            assert "cut.llmz: no text is lost, but the archive is incomplete: truncated" in err
        elif complete in (2, 3) and " is not whole" in err:  # frames that say that they are the last
            lost = f"bytes {begin:,} to {begins[complete + 1]:,} are lost: frame {number}, the last one, of "
            assert f"{lost}{len(texts[complete])} bytes is not whole: truncated" in err
        elif " is not whole" in err:
            lost = f"the text from byte {begin:,} on is lost: frame {number} of {len(texts[complete])} bytes"
            assert f"{lost} is not whole: truncated" in err
        else:  # inside the headers of an archive or a frame
            assert f"the text from byte {begin:,} on is lost: truncated" in err
    # Most of a frame is its payload, whose size its header has told.
    (tmp_path / "cut.llmz").write_bytes(whole[: ends[1] - 20])
    assert "frame 1 of 65 bytes is not whole" in call("cat", "--salvage", "cut.llmz")[2]


def test_salvage_up_to_a_damaged_header(call: Call, tmp_path: Path) -> None:
    whole = bytearray(frames_of(PARTS))
    ends = [frame.offset_bytes + frame.size_bytes for frame in reading.read_archives(io.BytesIO(bytes(whole)))]
    whole[ends[0]] ^= 0x07  # the method of the second frame
    (tmp_path / "bad.llmz").write_bytes(whole)
    code, out, err = call("cat", "--salvage", "bad.llmz")
    assert (code, out) == (4, PARTS[0])
    assert (
        err.startswith("llmzip: bad.llmz: the text from byte 57 on is lost: frame 1: damaged") and err.count("\n") == 1
    )
    (tmp_path / "foreign").write_bytes(b"no archive")
    assert call("cat", "--salvage", "foreign") == (1, b"", "llmzip: foreign: not an llmzip archive\n")
    code, out, err = call("cat", "bad.llmz")
    assert (code, out) == (4, b"") and err.startswith("llmzip: bad.llmz: frame 1: damaged")


@pytest.mark.parametrize("bits", ["8", "16"])
@pytest.mark.parametrize("window_bits", ["24", "40", "50"])
def test_tokens(call: Call, tmp_path: Path, bits: str, window_bits: str) -> None:
    (tmp_path / "tide.txt").write_bytes(TEXT)
    assert call("-m", "small", "--window-bits", window_bits, "tide.txt")[0] == 0
    assert out(call, "windows", "--export", "t.npy", "--token-bits", bits, "tide.txt.llmz") == b""
    tokens = np.load(tmp_path / "t.npy")
    assert tokens.dtype == {"8": np.uint8, "16": np.uint16}[bits] and tokens.ndim == 1
    assert len(tokens) == pytest.approx(8 * (tmp_path / "tide.txt.llmz").stat().st_size / int(bits), rel=0.15)
    assert out(call, "windows", "--import", "t.npy") == TEXT
    np.save(tmp_path / "t.npy", tokens.astype(np.int64))
    assert out(call, "windows", "--import", "t.npy") == TEXT
    if bits == "8":
        wrong = tokens.astype(np.int64)
        wrong[3] = 256
        np.save(tmp_path / "t.npy", wrong)
        code, _, err = call("windows", "--import", "t.npy")
        assert code == 4 and "tokens must be 0 to 255, not" in err
        np.save(tmp_path / "t.npy", tokens[:-1])
        assert call("windows", "--import", "t.npy")[0] == 4
        (tmp_path / "t.npy.json").write_text("{}")
        assert call("windows", "--import", "t.npy")[0] == 4
        (tmp_path / "t.npy.json").unlink()
        code, _, err = call("windows", "--import", "t.npy")
        assert code == 1 and "t.npy.json: No such file" in err


def test_tables(call: Call, tmp_path: Path) -> None:
    (tmp_path / "tide.txt").write_bytes(TEXT[:400])
    facts = json.loads(out(call, "windows", "-m", "small", "--json", "--window-bits", "32", "tide.txt"))
    assert facts["window_bits"] == [32] and facts["bytes"] == 400
    assert facts["characters"] == len(TEXT[:400].decode("utf-8", "ignore"))
    assert sum(facts["histogram"].values()) == facts["windows"]
    assert facts["bytes_per_8_bits"] == pytest.approx(400 * 8 / (32 * facts["windows"]))
    assert 0 < facts["unused_bits_per_window"] < 32
    kept = json.loads(
        out(call, "windows", "-m", "small", "--json", "--window-bits", "32", "--no-model-reset", "tide.txt")
    )
    assert kept["windows"] < facts["windows"]
    table = out(call, "windows", "-m", "small", "--window-bits", "32", "tide.txt").decode()
    assert f"{facts['windows']:,}" in table and "bytes per window" in table and "#####" in table
    shown = out(call, "windows", "-m", "small", "--window-bits", "32", "--show", "tide.txt").decode()
    assert shown.count("|") == facts["windows"] and shown.replace("|", "").startswith("The tide comes in, and")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--window-bits", "15", "tide.txt"], 2, "16 to 65,536"),
        (["--no-model-reset", "tide.txt"], 2, "only windows"),
        (["--window-bits", "64", "--rows", "3", "tide.txt"], 2, "windows cannot be combined with rows"),
        (["cat", "--range", "3", "tide.txt.llmz"], 2, "not of the form A:B"),
        (["cat", "--range", "9:3", "tide.txt.llmz"], 2, "ends before it begins"),
        (["cat", "--range", "0:3", "--window", "1", "tide.txt.llmz"], 2, "exclude each other"),
        (["cat", "--window", "99999", "tide.txt.llmz"], 2, "windows"),
        (["cat", "missing"], 1, "missing: No such file"),
        (["cat", "tide.txt"], 1, "not an llmzip archive"),
        (["windows", "--import", "missing.npy"], 1, "missing.npy: No such file"),
        (["windows", "--import", "--show", "t.npy"], 2, "cannot be used with"),
        (["windows", "--window-bits", "32", "tide.txt.llmz"], 2, "this is an archive"),
        (["windows", "--color", "never", "tide.txt.llmz"], 2, "--color needs --show"),
        (["windows", "--import", "tide.txt"], 4, "not an array of tokens"),
        (["windows", "plain.llmz"], 2, "plain.llmz was not made with --window-bits, so it has no windows"),
        (
            ["cat", "--window", "0:4", "plain.llmz"],
            2,
            "plain.llmz: was not made with --window-bits, so it has no windows; use --ra",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_use(call: Call, archive: Path, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "plain").write_bytes(bytes(99))
    assert call("plain")[0] == 0
    found, output, err = call(*arguments)
    assert (found, output) == (code, b"")
    assert words in err and err.count("\n") <= 2


def test_arrays_of_several_frames_keep_their_lines(call: Call, tmp_path: Path) -> None:
    """The index of an archive that is made of an array counts line feeds, which nobody can know from the tokens."""
    name = "tide.txt.llmz"
    assert call("-m", "small", "--window-bits", "64", "--frame-bytes", "300", "tide.txt")[0] == 0
    assert out(call, "windows", "--export", "t.npy", name) == b""
    assert out(call, "windows", "--import", "t.npy") == TEXT
    facts = json.loads((tmp_path / "t.npy.json").read_text())
    parts = [TEXT[begin : begin + 300] for begin in range(0, len(TEXT), 300)]
    assert [frame["line_feeds"] for frame in facts["frames"]] == [part.count(b"\n") for part in parts]
    right = facts["frames"][1]["line_feeds"]
    for wrong in (right + 1, right - 1, -1, 301, 1 << 70, "1", None, 0.5):
        facts["frames"][1]["line_feeds"] = wrong
        (tmp_path / "t.npy.json").write_text(json.dumps(facts))
        code, _, err = call("windows", "--import", "t.npy")
        assert code == 4 and "damaged: " in err and err.count("\n") == 1, (wrong, err)
    del facts["frames"][1]["line_feeds"]
    (tmp_path / "t.npy.json").write_text(json.dumps(facts))
    code, _, err = call("windows", "--import", "t.npy")
    assert code == 4 and "t.npy.json lacks or misstates 'line_feeds'" in err
