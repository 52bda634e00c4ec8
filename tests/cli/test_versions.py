"""Archives of other format versions: refused by name, by every command, and nothing is lost."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmzip

from .conftest import ROOT, Run, leftovers

VECTORS = ROOT / "tests" / "contract" / "vectors"
OLD = {name: (VECTORS / f"unsupported-version-1{name}.llmz").read_bytes() for name in ("", "-lm")}
REASON = "format version 1 is not supported, only version 2: llmzip 0.1 reads it"
READING = [
    ["-d"], ["-dc"], ["-dcf"], ["-d", "--rm"], ["-df", "--rm"], ["-t"], ["-l"], ["info"], ["cat"], ["cat", "--salvage"],
    ["cat", "--range", "0:5"], ["cat", "--window", "0"], ["windows"],
]  # fmt: skip

Call = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({"old.llmz": OLD[""]})


@pytest.mark.parametrize("kind", OLD)
@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_command_names_the_version_and_what_reads_it(
    call: Call, tmp_path: Path, command: list[str], kind: str
) -> None:
    (tmp_path / "old.llmz").write_bytes(OLD[kind])
    code, out, err = call(*command, "old.llmz")
    assert (code, out) == (1, b"")
    assert err.startswith(f"llmzip: old.llmz: {REASON}") and err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old.llmz": OLD[kind]}


@pytest.mark.parametrize("option", ["-d", "-t", "-l"])
def test_pipes_are_refused_too(run: Run, option: str) -> None:
    done = run(option, input=OLD[""])
    assert (done.returncode, done.stdout) == (1, b"")
    assert REASON in done.stderr.decode() and done.stderr.count(b"\n") == 1


def test_scripts_see_the_kind_of_error(call: Call) -> None:
    code, out, _ = call("-l", "--json", "old.llmz")
    (record,) = map(json.loads, out.decode().splitlines())
    assert (code, record["error"]["code"], record["error"]["kind"]) == (1, 1, "FormatError")
    assert REASON in record["error"]["message"]


def test_estimate_takes_it_for_an_archive(call: Call) -> None:
    code, out, err = call("estimate", "old.llmz")
    assert (code, out) == (1, b"") and "is already an llmzip archive" in err


def test_the_files_after_it_are_read(call: Call, tmp_path: Path) -> None:
    (tmp_path / "new.llmz").write_bytes(llmzip.compress(b"\0\1"))
    code, _, err = call("-d", "--rm", "old.llmz", "new.llmz")
    assert code == 1 and REASON in err
    assert {path.name for path in tmp_path.iterdir()} == {"old.llmz", "new"}
    assert (tmp_path / "new").read_bytes() == b"\0\1"


def frames_of(*texts: bytes) -> bytes:
    """An archive with a frame for each text, and an index if there are several."""
    compressor = llmzip.Compressor()
    parts = [compressor.compress(text) + compressor.flush(compressor.FLUSH_FRAME) for text in texts]
    return b"".join(parts) + compressor.flush()


@pytest.mark.parametrize("after", [b"", frames_of(b"\5"), frames_of(b"\5", b"\6")], ids=["last", "amid", "indexed"])
@pytest.mark.parametrize("before", [frames_of(b"\1\2"), frames_of(b"\1", b"\2")], ids=["one frame", "two frames"])
@pytest.mark.parametrize("kind", OLD)
def test_an_old_archive_among_others_is_named_and_not_passed_over(
    call: Call, tmp_path: Path, before: bytes, after: bytes, kind: str
) -> None:
    data = before + OLD[kind] + after
    (tmp_path / "old.llmz").write_bytes(data)
    reason = f"archive from byte {len(before)} on: {REASON}"
    for command in (["-dc"], ["-d"], ["-d", "--rm"], ["-t"], ["-l"], ["info"], ["cat"], ["cat", "--range", "0:1"]):
        code, out, err = call(*command, "old.llmz")
        assert (code, out) == (1, b"\1\2" if command == ["-dc"] else b""), command
        assert err.startswith(f"llmzip: old.llmz: {reason}") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old.llmz"] and leftovers(tmp_path) == []
    assert (tmp_path / "old.llmz").read_bytes() == data
    code, out, err = call("cat", "--salvage", "old.llmz")
    assert (code, out) == (1, b"\1\2")
    assert err == (
        f"llmzip: old.llmz: {reason}; the text from byte 2 on is not written\n"
        "llmzip: old.llmz: saved 2 bytes with 0 line breaks; an unknown number of bytes is not read\n"
    )


def test_a_truncated_old_archive_is_named(call: Call, tmp_path: Path) -> None:
    for length in range(4, len(OLD[""])):
        (tmp_path / "old.llmz").write_bytes(OLD[""][:length])
        for command in ("-dc", "-l"):
            code, out, err = call(command, "old.llmz")
            assert (code, out) == (1, b"") and REASON in err


def test_nothing_is_appended_to_an_old_archive(tmp_path: Path) -> None:
    path = tmp_path / "old.llmz"
    path.write_bytes(OLD[""])
    for mode in ("ab", "at"):
        with pytest.raises(llmzip.FormatError) as caught:
            llmzip.open(path, mode)
        assert str(caught.value) == f"cannot append to {path}: {REASON}"
    assert path.read_bytes() == OLD[""]
    for begun in (b"", b"\xf7LZ", b"text", llmzip.compress(b"\0")):  # what may be appended to
        path.write_bytes(begun)
        with llmzip.open(path, "ab") as file:
            file.write(b"\1")
        assert path.read_bytes() == begun + llmzip.compress(b"\1")


def test_readers_in_python_name_it() -> None:
    reads: list[Callable[[bytes], Any]] = [
        llmzip.decompress, llmzip.info, lambda data: llmzip.open(io.BytesIO(data)).read(),
        lambda data: llmzip.Decompressor().decompress(data),
    ]  # fmt: skip
    for read in reads:
        with pytest.raises(llmzip.FormatError) as caught:
            read(OLD[""])
        assert str(caught.value) == REASON


def test_arrays_of_old_archives_are_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"The tide comes in, and the tide goes out.\n" * 3)
    assert call("-m", "small", "--window-bits", "32", "a.txt")[0] == 0
    assert call("windows", "--export", "a.npy", "a.txt.llmz")[0] == 0
    beside = tmp_path / "a.npy.json"
    facts = json.loads(beside.read_text())
    assert facts["header"] == "f74c5a32"
    beside.write_text(json.dumps(facts | {"header": "f74c5a31"}))
    assert call("windows", "--import", "a.npy") == (1, b"", f"llmzip: a.npy: {REASON}\n")
    assert np.load(tmp_path / "a.npy").size
