"""The command cat: lines and bytes as sed, tail and Python give them, several files, damage, wrong use."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmzip
from llmzip.cli.main import main
from llmzip.format.reading import read_archives
from llmzip.format.writing import pack_index

from .conftest import Run

Call = Callable[..., tuple[int, bytes, str]]

TEXT = "".join(f"line {number}, Größe {number * number}\n" for number in range(1, 101)).encode() + b"no end"


def packed(text: bytes, frame_bytes: int) -> bytes:
    return llmzip.compress(text, level=1, model="small", frame_bytes=frame_bytes)


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({"text": TEXT, "text.llmz": packed(TEXT, 300), "one.llmz": packed(TEXT, 1 << 20)})


def out(call: Call, *arguments: str) -> bytes:
    code, output, err = call(*arguments)
    assert (code, err) == (0, "")
    return output


@pytest.mark.parametrize("name", ["text.llmz", "one.llmz"])
def test_lines_are_numbered_as_sed_numbers_them(call: Call, name: str) -> None:
    lines = TEXT.splitlines(keepends=True)
    for first, last in ((1, 1), (1, 10), (50, 60), (100, 101), (101, 101), (90, 500), (500, 600)):
        expected = b"".join(lines[first - 1 : last])
        assert out(call, "cat", "--lines", f"{first}:{last}", name) == expected
    assert out(call, "cat", "--lines", "17", name) == lines[16]
    assert out(call, "cat", "--lines", ":3", name) == b"".join(lines[:3])
    assert out(call, "cat", "--lines", "99:", name) == b"".join(lines[98:])


@pytest.mark.parametrize("name", ["text.llmz", "one.llmz"])
def test_lines_below_0_count_from_the_end(call: Call, name: str) -> None:
    lines = TEXT.splitlines(keepends=True)
    assert out(call, "cat", "--lines", "-1", name) == b"no end"
    assert out(call, "cat", "--lines", "-10:", name) == b"".join(lines[-10:])
    assert out(call, "cat", "--lines=-10:-3", name) == b"".join(lines[-10:-2])
    assert out(call, "cat", "--lines", ":-100", name) == b"".join(lines[:2])
    assert out(call, "cat", "--lines", "98:-2", name) == b"".join(lines[97:-1])
    assert out(call, "cat", "--lines", "-3:99", name) == b"".join(lines[-3:99])
    assert out(call, "cat", "--lines", "-500:2", name) == b"".join(lines[:2])
    assert out(call, "cat", "--lines", "60:-60", name) == b""


@pytest.mark.parametrize("name", ["text.llmz", "one.llmz"])
def test_ranges_are_slices(call: Call, name: str) -> None:
    for first, last in ((0, 7), (-9, None), (None, -9), (-40, -20), (20, -20), (-99_999, 3), (-5, 2), (3, 99_999)):
        text = f"{'' if first is None else first}:{'' if last is None else last}"
        assert out(call, "cat", "--range", text, name) == TEXT[first:last]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text("ab\n\r\0ö", max_size=30).map(str.encode), min_size=1, max_size=3),
    frame_bytes=st.integers(1, 40),
    first=st.integers(1, 9),
    more=st.integers(0, 9),
)
def test_any_lines_of_any_archives_are_those_of_sed(
    texts: list[bytes],
    frame_bytes: int,
    first: int,
    more: int,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """A file of several archives is one text."""
    archive = tmp_path / "a.llmz"
    archive.write_bytes(b"".join(packed(text, frame_bytes) for text in texts))
    sed = ["sed", "-n", f"{first},{first + more}p"]
    expected = subprocess.run(sed, input=b"".join(texts), capture_output=True, check=True).stdout
    capfdbinary.readouterr()
    assert main(["cat", "--lines", f"{first}:{first + more}", str(archive)]) == 0
    assert capfdbinary.readouterr().out == expected
    tail = subprocess.run(["tail", "-n", str(first)], input=b"".join(texts), capture_output=True, check=True).stdout
    assert main(["cat", "--lines", f"-{first}:", str(archive)]) == 0
    assert capfdbinary.readouterr().out == tail


def test_several_files_follow_each_other(call: Call) -> None:
    assert out(call, "cat", "one.llmz", "text.llmz") == TEXT + TEXT
    assert out(call, "cat", "--lines", "2", "one.llmz", "text.llmz") == TEXT.splitlines(keepends=True)[1] * 2
    code, output, err = call("cat", "--lines", "1", "text.llmz", "missing", "text", "one.llmz")
    assert (code, output) == (1, TEXT.splitlines(keepends=True)[0] * 2)
    assert err == "llmzip: missing: No such file or directory\nllmzip: text: not an llmzip archive\n"


def test_the_standard_input_is_read(run: Run, tmp_path: Path) -> None:
    data = packed(TEXT, 300)
    (tmp_path / "a.llmz").write_bytes(data)
    expected = TEXT.splitlines(keepends=True)[9]
    for names in ((), ("-",)):
        done = run("cat", "--lines", "10", *names, input=data)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")
    with (tmp_path / "a.llmz").open("rb") as file:
        done = run("cat", "--lines", "10", "a.llmz", "-", stdin=file)
    assert (done.returncode, done.stdout) == (0, expected * 2)


def test_empty_texts_have_no_lines(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty.llmz").write_bytes(llmzip.compress(b""))
    for lines in ("1", "-1", "1:", "-5:"):
        assert out(call, "cat", "--lines", lines, "empty.llmz") == b""
    assert out(call, "cat", "--range", "-5:", "empty.llmz") == b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lines", "0"], "'0': the first line is 1, the last one -1"),
        (["--lines", "0:5"], "the first line is 1"),
        (["--lines", "5:0"], "the first line is 1"),
        (["--lines", "9:3"], "ends before it begins"),
        (["--lines", "-3:-9"], "ends before it begins"),
        (["--lines", ":"], "not of the form A:B or N"),
        (["--lines", "a:b"], "not of the form A:B or N"),
        (["--lines", "1:2:3"], "not of the form A:B or N"),
        (["--lines", "1" * 5000], "not of the form A:B or N"),
        (["--lines", "1,2"], "not of the form A:B or N"),
        (["--range", "1" * 5000 + ":"], "not of the form A:B"),
        (["--range", "-3:-9"], "ends before it begins"),
        (["--window", "-3:"], "not of the form A:B"),
        (["--lines", "1:2", "--range", "1:2"], "--lines, --range, --window and --salvage exclude each other"),
        (["--lines", "1:2", "--salvage"], "exclude each other"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_wrong_use(call: Call, arguments: list[str], words: str) -> None:
    code, output, err = call("cat", *arguments, "text.llmz")
    assert (code, output) == (2, b"")
    assert words in err and err.count("\n") == 2


def test_an_index_with_other_lines_is_damage(call: Call, tmp_path: Path) -> None:
    """Its checksums are right. Lines by it would be others, so none are written from that frame on."""
    data = packed(TEXT, 300)
    frames = list(read_archives(io.BytesIO(data), skip_payloads=True))
    entries = [(frame.size_bytes, frame.header.original_bytes, frame.line_feeds or 0) for frame in frames]
    entries[3] = (*entries[3][:2], entries[3][2] - 1)
    (tmp_path / "bad.llmz").write_bytes(data[: frames[-1].offset_bytes + frames[-1].size_bytes] + pack_index(entries))
    before = sum(entry[2] for entry in entries[:3])
    assert call("cat", "--lines", f"1:{before}", "bad.llmz")[0] == 0
    code, _, err = call("cat", "--lines", f"{before + 2}", "bad.llmz")
    assert code == 4
    promised, found = entries[3][2], entries[3][2] + 1
    message = f"frame 3: damaged: {promised} line feeds by the archive's index, {found} in the text"
    assert err == f"llmzip: bad.llmz: {message}\n"
    code, _, err = call("-t", "bad.llmz")
    assert code == 4 and message in err
    assert call("cat", "--salvage", "bad.llmz") == (0, TEXT, "")
