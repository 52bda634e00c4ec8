"""The command packets: streams and folders, losses, other texts and models, wrong use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmzip.format.packets import check16, pack, parse, stream_entry, stream_header

from .conftest import ROOT, Run

TEXT = (ROOT / "corpora" / "prose-en.txt").read_bytes()[:1100]
Call = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({"tide.txt": TEXT})


@pytest.fixture
def folder(call: Call, tmp_path: Path) -> Path:
    assert call("packets", "-m", "small", "--packet-bytes", "60", "tide.txt", "-o", "p") == (0, b"", "")
    return tmp_path / "p"


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_folder(call: Call, folder: Path) -> None:
    packets = files(folder)
    assert len(packets) > 5 and all(packet.stat().st_size <= 60 for packet in packets)
    assert call("packets", "-d", "p") == (0, TEXT, "")
    for number, packet in enumerate(packets):  # names mean nothing
        packet.rename(folder / f"{check16(packet.name.encode())}-{number}")
    assert call("packets", "-d", "p") == (0, TEXT, "")
    assert call("packets", "-d", *(str(file) for file in reversed(files(folder)))) == (0, TEXT, "")


def test_a_stream(call: Call, run: Run, tmp_path: Path) -> None:
    code, stream, err = call("packets", "-m", "small", "-v", "tide.txt")
    assert code == 0 and stream.startswith(b"\xf7LP\x01")
    (tmp_path / "tide.llmp").write_bytes(stream)
    assert "packets" in err and err.startswith("tide.txt: 1,100 bytes -> ")
    assert call("packets", "-d", "tide.llmp") == (0, TEXT, "")
    piped = run("packets", "-d", "-", input=stream)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, TEXT, b"")
    piped = run("packets", "-", "-m", "small", input=TEXT)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, stream, b"")


def test_an_empty_text(call: Call, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_bytes(b"")
    code, stream, _ = call("packets", "none.txt")
    (tmp_path / "none.llmp").write_bytes(stream)
    assert code == 0 and call("packets", "-d", "none.llmp") == (0, b"", "")


def test_losses_are_named(call: Call, folder: Path, tmp_path: Path) -> None:
    packets = files(folder)
    begins = [parse(packet.read_bytes()).begin for packet in packets] + [len(TEXT)]
    packets[1].unlink()
    packets[-1].unlink()
    damaged = bytearray(packets[3].read_bytes())
    damaged[40] ^= 1
    packets[3].write_bytes(damaged)
    code, text, err = call("packets", "-d", "p")
    assert code == 4
    last = len(packets) - 1
    assert text == TEXT[: begins[1]] + TEXT[begins[2] : begins[3]] + TEXT[begins[4] : begins[last]]
    lines = err.splitlines()
    assert lines[0].startswith(f"llmzip: {Path('p') / packets[3].name}: damaged: check stored ")
    assert lines[1] == f"llmzip: bytes {begins[1]} to {begins[2]} of the text are missing: packet 1 is lost"
    assert lines[2] == f"llmzip: bytes {begins[3]} to {begins[4]} of the text are missing: packet 3 is lost"
    assert (
        lines[3]
        == f"llmzip: the text from byte {begins[last]:,} on is missing: packet {last} and any after it are lost"
    )
    assert len(lines) == 4
    # A stream that was cut off.
    stream = stream_header() + b"".join(stream_entry(file.read_bytes()) for file in files(folder)[:2])
    (tmp_path / "cut.llmp").write_bytes(stream[:-1])
    code, text, err = call("packets", "-d", "cut.llmp")
    assert code == 4 and text == TEXT[: begins[1]] and "cut.llmp: the stream of packets ends within a packet" in err


def test_packets_of_several_texts_and_models(call: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"Another text, which is shorter.")
    assert call("packets", "-m", "small", "b.txt", "-o", "q")[0] == 0
    (other,) = files(tmp_path / "q")
    names = [f"{parse(file.read_bytes()).text:04x}" for file in (files(folder)[0], other)]
    code, text, err = call("packets", "-d", "p", "q")
    assert (code, text) == (2, b"") and err.startswith(
        f"llmzip: packets of 2 texts; choose one with --text: {names[0]} "
    )
    assert call("packets", "-d", "p", "q", "--text", names[0]) == (0, TEXT, "")
    assert call("packets", "-d", "p", "q", "--text", names[1].upper()) == (0, b"Another text, which is shorter.", "")
    code, text, err = call("packets", "-d", "p", "--text", "zzzz")
    assert (code, text, err) == (4, b"", "llmzip: no packets of the text zzzz\n")

    code, text, err = call("packets", "-d", "p", "-m", "base")
    assert (code, text) == (3, b"") and "made with another model" in err and err.count("\n") == 1
    for file in files(folder):
        packet = parse(file.read_bytes())
        file.write_bytes(pack(type(packet)(b"elsE", *list(vars(packet).values())[1:])))
    code, text, err = call("packets", "-d", "p")
    assert (code, text) == (3, b"") and "a model that is not embedded, 656c7345; name it with -m" in err
    code, text, err = call("packets", "-d", "p", "q")
    assert (code, text) == (3, b"") and err.count("\n") == 1


def test_wrong_use(call: Call, folder: Path, tmp_path: Path) -> None:
    for arguments, code, part in (
        (("tide.txt", "b.txt"), 2, "only one text at a time"),
        (("-d", "p", "-o", "q"), 2, "-o cannot be used with -d"),
        (("tide.txt", "--text", "abcd"), 2, "--text needs -d"),
        (("--packet-bytes", "31", "tide.txt"), 2, "packets have 32 to 8,192 bytes, 31 were asked for"),
        (("--packet-bytes", "9000", "missing"), 2, "packets have 32 to 8,192 bytes"),
        (("tide.txt", "-m", "small", "-o", "p"), 1, "p: File exists"),
        (("tide.txt", "-m", "small", "-o", "no/such"), 1, "no/such: No such file or directory"),
        (("missing",), 1, "missing: No such file or directory"),
        (("-d", "missing"), 1, "missing: No such file or directory"),
        (("-d", "tide.txt"), 4, "tide.txt: damaged: "),
        (("tide.txt", "-m", "nothing"), 3, "nothing"),
    ):
        found, text, err = call("packets", *arguments)
        assert (found, text) == (code, b"") and part in err, arguments
        assert "Traceback" not in err and len(files(folder)) > 5
    assert not (tmp_path / "q").exists()


def test_an_unfinished_folder_goes(call: Call, tmp_path: Path) -> None:
    code, _, err = call("packets", "tide.txt", "-o", "new", "-m", "nothing")
    assert code == 3 and err.count("\n") == 1 and not (tmp_path / "new").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full disk")
def test_a_full_disk(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tide.txt").write_bytes(TEXT)
    with open("/dev/full", "wb") as full:
        done = run("packets", "-m", "small", "tide.txt", stdout=full)
    assert done.returncode == 1 and done.stderr == b"llmzip: (stdout): No space left on device\n"
